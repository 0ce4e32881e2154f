"""What is not finite: said, and never in a checkpoint."""

import pytest

from engine.run_folder import RunFolder
from engine.training import Training
from supervised import SupOnly
from tests.test_interruption import poisoned


def test_no_checkpoint_holds_what_a_bad_batch_left(long, train, tmp_path, monkeypatch):
    """A checkpoint may be due at the very step whose batch has spoilt the running statistics."""
    poisoned(monkeypatch, {2})
    saved, save = [], RunFolder.save

    def spying(self, state, history):
        saved.append(all(v.isfinite().all() for v in state["method"].values()))
        save(self, state, history)

    monkeypatch.setattr(RunFolder, "save", spying)
    train(SupOnly, long.argv(tmp_path / "run", "--set", "save_every=1", "epochs=1"))
    assert saved == [True] * 6


def test_gradients_that_alone_are_not_finite_are_said(long, train, tmp_path, monkeypatch, capsys):
    """The loss is finite, as with a root of zero; nothing is learnt, so the run must end."""
    step = Training.optimize

    def spying(self, raw, number):
        weight = next(self.method.parameters())
        hook = weight.register_hook(lambda g: g * float("nan") if number >= 5 else g)
        scalars = step(self, raw, number)
        hook.remove()
        return scalars

    monkeypatch.setattr(Training, "optimize", spying)
    with pytest.raises(SystemExit) as ended:
        train(SupOnly, long.argv(tmp_path / "run", "--set", "nonfinite_limit=3"))
    said = capsys.readouterr()
    assert ended.value.code == 2
    assert "step 5: gradients not finite, step left out" in said.out
    assert "step 8: gradients not finite, the 4th step in a row" in said.err
    assert not list((tmp_path / "run").glob("nonfinite*"))
