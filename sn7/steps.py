"""Around an optimizer step: pieces of a batch, fp16's scale, clipping, frozen epochs, the moving average."""

import torch
from fastai.callback.core import Callback, CancelBatchException, CancelStepException
from fastai.callback.schedule import ParamScheduler
from fastcore.basics import getcallable
from torch import Tensor, nn

__all__ = ["Frozen", "MovingAverage", "Plain", "Steps"]


class Plain(Callback):
    """A callback whose errors pass through as they are; fastai would rewrite their text, and fail if they have none."""

    def __call__(self, event_name: str) -> None:
        getcallable(self, event_name)()


class Steps(Callback):
    """One optimizer step a batch, in however many pieces it comes: their gradients add up, weighted by tiles.

    That makes the gradient of the mean over the pieces of their losses, each weighted by its share of the tiles. A
    gradient longer than `clip_norm` is shortened to it. With a `scaler` gradients are computed enlarged, and a step
    in which one of them overflowed is left out.
    """

    order, run_valid = ParamScheduler.order + 1, False

    def __init__(self, clip_norm: float, scaler: torch.amp.GradScaler | None) -> None:
        self.clip_norm, self.scaler = clip_norm, scaler
        self.overflowed = False
        """Whether the last step was left out."""

    def before_train(self) -> None:
        self.seen = 0

    def before_batch(self) -> None:
        # fastai's schedule moves on with each piece; a batch has the rates of its first one.
        if self.seen == 0:
            self.rates = [dict(hypers) for hypers in self.opt.hypers]
        for hypers, rates in zip(self.opt.hypers, self.rates, strict=True):
            hypers.update(rates)

    def after_loss(self) -> None:
        self.learn.loss_grad = self.loss_grad * (len(self.yb[0]) / self.dls.train.batch_tiles)

    def before_backward(self) -> None:
        if self.scaler:
            self.learn.loss_grad = self.scaler.scale(self.loss_grad)

    def before_step(self) -> None:
        self.seen += len(self.yb[0])
        if self.seen < self.dls.train.batch_tiles:
            raise CancelBatchException
        self.seen = 0
        if self.scaler:
            self.scaler.unscale_(self)
        if self.clip_norm:
            nn.utils.clip_grad_norm_([weight for weight, *_ in self.opt.all_params(with_grad=True)], self.clip_norm)
        if self.scaler:
            self.overflowed = True
            self.scaler.step(self)
            if self.overflowed:
                raise CancelStepException

    @property
    def param_groups(self) -> object:
        """The weights whose gradients the scaler looks at: to it this callback is the optimizer."""
        return self.opt.param_groups

    def step(self) -> None:
        """Note that no gradient overflowed, which is when the scaler calls this; fastai makes the step itself."""
        self.overflowed = False

    def after_step(self) -> None:
        if self.scaler:
            self.scaler.update()


class Frozen(Callback):
    """Holds the encoder's weights, but for its normalisation, in the first epochs."""

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs

    def before_train(self) -> None:
        self.opt.freeze_to(-1 if self.epoch < self.epochs else 0)


class MovingAverage(Callback):
    """An exponential moving average of the weights and batch statistics, which is validated and kept in their place.

    Its memory grows with the steps, up to `decay`: the first weights are random, and should not be remembered long.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay, self.updates = decay, 0
        self.live = [tensor for tensor in model.state_dict().values() if tensor.is_floating_point()]
        self.average = [tensor.clone() for tensor in self.live]

    def after_step(self) -> None:
        if self.learn.steps.overflowed:  # the step was left out
            return
        self.update()

    def update(self) -> None:
        """Take in the weights after a step."""
        self.updates += 1
        decay = min(self.decay, self.updates / (9 + self.updates))
        torch._foreach_lerp_(self.average, self.live, 1 - decay)

    def before_validate(self) -> None:
        self.swap()

    def swap(self) -> None:
        """Exchange the model's own values and their average, one by one: all at once they would need a third copy."""
        for live, average in zip(self.live, self.average, strict=True):
            held = live.clone()
            live.copy_(average)
            average.copy_(held)

    def state(self) -> dict[str, Tensor | int]:
        """Return what restore() takes, by the places of the tensors."""
        return {"updates": self.updates, **{str(place): tensor for place, tensor in enumerate(self.average)}}

    def restore(self, state: dict[str, Tensor | int]) -> None:
        """Go on from state(); raises KeyError or RuntimeError where it is another model's."""
        self.updates = int(state["updates"])
        for place, tensor in enumerate(self.average):
            tensor.copy_(torch.as_tensor(state[str(place)]))
