"""SupOnly: the baseline, trained on the labelled images only.

It draws twice as many labelled images per step as the other methods, so that steps of all methods
see equally many images.
"""

from engine.start import check_command

if __name__ == "__main__":
    # handles --help and reports mistakes before importing PyTorch
    check_command("SupOnly", unlabeled=False)

from engine import Batch, Method, StepOutput, main


class SupOnly(Method):
    unlabeled = False

    def step(self, batch: Batch) -> StepOutput:
        x, y = batch["labeled"]["image"], batch["labeled"]["mask"]
        loss = self.criterion(self.model(x), y)
        return loss, {"x": loss}


if __name__ == "__main__":
    main(SupOnly)
