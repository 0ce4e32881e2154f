"""SupOnly: the baseline that sees the labelled images alone.

Its batch has a labelled image wherever the other methods have an unlabelled one, so that every
method sees equally many images per step.
"""

from engine import Batch, Method, Step, main


class SupOnly(Method):
    unlabeled = False

    def step(self, batch: Batch) -> Step:
        x, y = batch["labeled"]["image"], batch["labeled"]["mask"]
        loss = self.criterion(self.model(x), y)
        return loss, {"x": loss}


if __name__ == "__main__":
    main(SupOnly)
