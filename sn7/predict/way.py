"""How probs are made of images: as a model's folder names it, beside the rules that were tuned on such probs."""

from dataclasses import dataclass

from sn7.ensemble import PLAIN, TTA
from sn7.predict.pooled import Pooling

__all__ = ["Way"]


@dataclass(frozen=True)
class Way:
    """From images to the probs that polygons are made of."""

    tta: bool = False
    """The mean over the 8 symmetries."""
    pooling: Pooling | None = None
    """Over the months of a scene."""

    @classmethod
    def of(cls, text: str) -> "Way":
        """Return what `text`, as in Predictor.way, stands for: "plain", "tta", "mean 3", "median 25", …"""
        if text in (PLAIN, TTA):
            return cls(tta=text == TTA)
        how, months = text.split()
        return cls(pooling=Pooling(how, int(months)))

    @property
    def words(self) -> str:
        """What the probs are, for people."""
        if self.pooling:
            return f"the {self.pooling.how} over {self.pooling.months or 'all'} months"
        return "the mean over the 8 symmetries" if self.tta else "plain probs"

    @property
    def options(self) -> str:
        """The same as options of `sn7 predict`."""
        symmetries = "--tta" if self.tta else "--no-tta"
        if not self.pooling:
            return f"{symmetries} --pool none"
        return f"{symmetries} --pool {self.pooling.how} --pool-months {self.pooling.months}"
