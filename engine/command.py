"""The command line of every method."""

from engine.build import build_trainer
from engine.dry_run import dry_run
from engine.loggers import check_trackers
from engine.method import Method
from engine.run_dir import RunDir
from util import distributed
from util.cli import arguments, exit_with_one_line
from util.config.loading import load_config
from util.interrupt import leaving_when_asked
from util.log import say_to_console


def main(method: type[Method]) -> None:
    """Train a method with the config and the options of the command line."""
    options = arguments(method.__name__, method.unlabeled)
    with exit_with_one_line(), leaving_when_asked():
        config = load_config(options.config, options.set, options.overrides)
        method.read_options(config)
        check_trackers(config)
        device = distributed.choose_device(options.device)
        # A rank that fails says why before its connections close, which ends the others.
        with distributed.session(device), exit_with_one_line():
            say_to_console()
            distributed.require_equal("options", {"--dry-run": options.dry_run})
            run_dir = RunDir(options.save_path)
            try:
                if not options.dry_run:
                    distributed.on_main(run_dir.lock)
                trainer = build_trainer(
                    method, config, device, run_dir, options.resume, options.force
                )
                dry_run(trainer) if options.dry_run else trainer.fit()
            finally:
                run_dir.release()
