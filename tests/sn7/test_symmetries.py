import torch

from sn7.rules import PolygonRules
from sn7.symmetries import Symmetries


class Fake:
    """A predictor of any function."""

    name, threshold, window, channels, scale = "fake", 0.4, 64, 1, 1
    rules, tags = PolygonRules(threshold=0.4), {"MODEL": name}

    def __init__(self, function) -> None:  # type: ignore[no-untyped-def]
        self.function, self.calls = function, 0

    def outputs(self, batch: torch.Tensor) -> torch.Tensor:
        """Return what the function makes of the red channel."""
        self.calls += 1
        result: torch.Tensor = self.function(batch[:, :1].float())
        return result


def test_what_knows_no_direction_stays() -> None:
    """A predictor that looks at pixels alone gives the same with all 8 symmetries, also for oblong windows."""
    batch = torch.randint(0, 256, (2, 3, 32, 64), dtype=torch.uint8)
    fake = Fake(lambda red: red)
    tta = Symmetries(fake)
    assert torch.allclose(tta.outputs(batch), batch[:, :1].float())
    assert fake.calls == 8
    assert (tta.name, tta.threshold, tta.window, tta.channels, tta.scale) == ("fake", 0.4, 64, 1, 1)
    assert tta.rules == fake.rules


def test_a_shift_becomes_the_mean_of_all_directions() -> None:
    """A predictor that shifts a pixel to the right gives a quarter of it at each of its neighbours."""
    batch = torch.zeros((1, 3, 32, 32), dtype=torch.uint8)
    batch[0, :, 10, 20] = 8
    found = Symmetries(Fake(lambda red: red.roll(1, dims=-1))).outputs(batch)[0, 0]
    expected = torch.zeros(32, 32)
    for row, column in ((9, 20), (11, 20), (10, 19), (10, 21)):
        expected[row, column] = 2
    assert torch.equal(found, expected)


def test_outputs_are_equivariant() -> None:
    """Of an image and its mirror image the outputs are each other's mirror image, whatever the network."""
    torch.manual_seed(1)
    network = torch.nn.Conv2d(1, 1, 3, padding=1)
    tta = Symmetries(Fake(lambda red: network(red / 255).detach()))
    batch = torch.randint(0, 256, (1, 3, 32, 32), dtype=torch.uint8)
    for turn in (lambda x: x.flip(-1), lambda x: torch.rot90(x, 1, (-2, -1)), lambda x: x.transpose(-1, -2)):
        assert torch.allclose(tta.outputs(turn(batch).contiguous()), turn(tta.outputs(batch)), atol=1e-5)
