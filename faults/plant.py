"""Faults of a character or a word that code may hold: the mutations that mutmut knows."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import libcst as cst
import libcst.matchers as m
from libcst.metadata import ByteSpanPositionProvider, MetadataWrapper, PositionProvider
from mutmut.mutation import mutators


def fewer_arguments(node: cst.Call) -> list[cst.Call]:
    """A call without one of its arguments, so that the default takes its place."""
    fewer = [new for new in mutators.operator_arg_removal(node) if len(new.args) < len(node.args)]
    return [new for new in fewer if len(_checks(new)) == len(_checks(node))]


def _checks(call: cst.Call) -> list[cst.Arg]:
    return [arg for arg in call.args if m.matches(arg, CHECK)]


CHECK = m.Arg(keyword=m.Name("strict"), value=m.Name("True"))
"""zip's, of what the code knows: nothing fails without it."""


MUTATIONS = {
    mutators.operator_number: cst.BaseNumber,
    mutators.operator_name: cst.Name,
    mutators.operator_swap_op: cst.CSTNode,
    mutators.operator_keywords: cst.CSTNode,
    mutators.operator_remove_unary_ops: cst.UnaryOperation,
    mutators.operator_augmented_assignment: cst.AugAssign,
    fewer_arguments: cst.Call,
    mutators.operator_if_exp: cst.IfExp,
}
"""Those that decide what code computes, and the nodes that they change.  Left out are texts, and
None in place of a value, which nearly every test finds."""
LEFT_ALONE = (
    m.Annotation()
    | m.Import()
    | m.ImportFrom()
    | CHECK
    | m.Raise()
    | m.Assert()
    | m.Call(func=m.Name("print") | m.Attribute(value=m.Name("logger")))
    | m.If(test=m.Comparison(left=m.Name("__name__")))
)
"""Types, imports, and what is only said."""
BLOCKS = (cst.FunctionDef, cst.ClassDef, cst.If, cst.For, cst.While, cst.With, cst.Try)


class Fault(NamedTuple):
    """One change of one file."""

    path: str
    """Relative to the repository."""
    first: int
    """The first line of the statement, from 1."""
    last: int
    """Its last one; of a block's head alone."""
    before: str
    """The lines that change, without their indentation, as one."""
    after: str
    """What they become."""
    code: str
    """The whole file with the fault in it."""

    @property
    def name(self) -> str:
        """What it is told by in lists; the same wherever in the file the lines are."""
        return f"{self.before}  ->  {self.after}"


class _Finder(cst.CSTVisitor):
    METADATA_DEPENDENCIES = (PositionProvider,)

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[cst.CSTNode, cst.CSTNode, tuple[int, int]]] = []
        self._statements: list[tuple[int, int]] = [(1, 1)]

    def on_visit(self, node: cst.CSTNode) -> bool:
        if m.matches(node, LEFT_ALONE):
            return False
        if isinstance(node, (cst.SimpleStatementLine, *BLOCKS)):
            place = self.get_metadata(PositionProvider, node)
            end = place.end.line
            if isinstance(node, BLOCKS):
                end = max(place.start.line, self._begin(node.body) - 1)
            self._statements.append((place.start.line, end))
        for mutate, kind in MUTATIONS.items():
            if isinstance(node, kind):
                self.found += [(node, new, self._statements[-1]) for new in mutate(node)]
        return True

    def on_leave(self, original_node: cst.CSTNode) -> None:
        if m.matches(original_node, LEFT_ALONE):
            return
        if isinstance(original_node, (cst.SimpleStatementLine, *BLOCKS)):
            self._statements.pop()

    def _begin(self, body: cst.BaseSuite) -> int:
        inner = body.body[0] if body.body else body
        return self.get_metadata(PositionProvider, inner).start.line


def faults_of(root: Path, path: str) -> Iterator[Fault]:
    """All faults of a file, by line; equal ones (the same change of an equal line) only once."""
    source = (root / path).read_text()
    tree, finder = MetadataWrapper(cst.parse_module(source), unsafe_skip_copy=True), _Finder()
    spans = tree.resolve(ByteSpanPositionProvider)
    tree.visit(finder)
    data, names = source.encode(), set()
    for old, new, (first, last) in finder.found:
        begin, end = spans[old].start, spans[old].start + spans[old].length
        planted = tree.module.code_for_node(new).encode()
        code = (data[:begin] + planted + data[end:]).decode()
        fault = Fault(path, first, last, *changed(source, code), code)
        if fault.before != fault.after and fault.name not in names:
            names.add(fault.name)
            yield fault


def changed(source: str, code: str) -> tuple[str, str]:
    """The lines by which two texts differ, joined, without indentation."""
    old, new = source.splitlines(), code.splitlines()
    start = next((n for n, (a, b) in enumerate(zip(old, new, strict=False)) if a != b), 0)
    behind = 0
    while behind < min(len(old), len(new)) - start and old[-1 - behind] == new[-1 - behind]:
        behind += 1
    both = (lines[start : len(lines) - behind] for lines in (old, new))
    before, after = (" ".join(" ".join(lines).split()) for lines in both)
    return before, after
