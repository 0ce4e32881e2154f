"""torchrun, but a failing training ends with its own exit code and its own last words."""

import sys

from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import get_args_parser, run

if __name__ == "__main__":
    try:
        run(get_args_parser().parse_args())
    except ChildFailedError as error:
        code = error.get_first_failure()[1].exitcode
        # A process killed by a signal has a negative code; shells say 128 + signal.
        sys.exit(code if code >= 0 else 128 - code)
