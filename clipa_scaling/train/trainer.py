"""Training one run: resume, step, log, evaluate, save, finish."""

from __future__ import annotations

import math
import signal
import time
from typing import Any

from clipa_scaling.models import load_model
from clipa_scaling.rundir import RunDir
from clipa_scaling.spec import RunSpec
from clipa_scaling.train import begin, checkpoint, watch
from clipa_scaling.train.ending import Diverged, Refused
from clipa_scaling.train.evaluate import Evaluator
from clipa_scaling.train.features import StopRequested, setting_of
from clipa_scaling.train.model import build_of, make_model
from clipa_scaling.train.record import Record
from clipa_scaling.train.step import Step, Taken
from clipa_scaling.train.stopping import Meetings, StopFlag
from clipa_scaling.train.window import Window
from clipa_scaling.train.world import World

CHECKPOINT_SECONDS = 300.0  # where the sweep file names no cadence: what a kill can cost at most
LOGGED_ROWS = 40  # where the sweep file names no cadence


class Trainer:
    """A run's model, data and place in the stream, on one of its ranks.

    Every rank does the same at the same step; what one alone sees (a signal, a clock, the disk) it
    does only after all have agreed.
    """

    def __init__(self, spec: RunSpec, run: RunDir, attempt: int, stop: StopFlag, world: World):
        self.spec, self.run, self.stop, self.world = spec, run, stop, world
        self.device = world.device
        model = load_model(spec.model)
        self.model = make_model(
            model, spec.image_size, spec.text_tokens, spec.vocab_size, spec.seed, build_of(spec)
        ).to(self.device)
        self.model.set_grad_checkpointing(spec.grad_checkpointing)
        self.stepper = Step(spec, self.model, world, begin.stream_key(spec, run))
        self.optimizer = self.stepper.optimizer
        self.evaluator = Evaluator(
            spec.evals if world.leads else (),
            setting_of(spec, self.device, lambda: self.agree_to_go_on(busy=True)[0]),
        )
        self.samples = 0
        self.origin: begin.Origin | None = None
        self.window = Window()
        self.record = Record(spec, run, attempt, world.leads)
        self.meetings = Meetings(world)
        self.started = self.last_saved = self.last_logged = time.monotonic()
        self.logged_at = 0
        self.signal = 0

    def train(self) -> int | None:
        """Resume, train to the end, evaluate; the signal that stopped it, if one did.

        Raises Diverged, and Refused where a parent is not done.
        """
        self.resume()
        is_complete = False
        try:
            self.compare_positions()
            while self.samples < self.spec.samples:
                self.meet()
                self.evaluate_if_due()
                self.step()
                self.save_if_due()
            self.save()
            self.evaluate_if_due()
            is_complete = True
        except StopRequested:
            self.save()
            self.record.event("stopped", self.samples, signal=signal.Signals(self.signal).name)
            reason = "stopped by a signal; the same command resumes it"
            self.record.state("stopped", self.samples, reason)
            return self.signal
        finally:
            self.record.close(is_complete)
        if self.world.leads:
            checkpoint.drop_optimizer(self.run, self.spec.keep_samples)
        self.record.done(self.samples, time.monotonic() - self.started)
        return None

    def resume(self) -> None:
        """Load the last checkpoint, or at first what the run starts from; forget what came past."""
        last = self.run.last_checkpoint()
        # Rank 0's word: another node may still see the folder as it was.
        [at] = self.world.from_first(-1 if last is None else int(last.name))
        if at < 0 and self.spec.kind == "decay":
            self.take_over(begin.find_branch(self.spec, self.run, self.device))
        elif at <= 0:
            self.load_origin()
        if at >= 0:
            self.take_over(checkpoint.load(self.run, int(at), self.device))
        # The weights that a seed makes may differ in last bits between types of CPU.
        self.world.copy_first(self.model.parameters())
        self.record.begin(self.samples)

    def load_origin(self) -> None:
        """Give rank 0 the weights that the run starts from. Refused on every rank, or on none."""
        refusal: Refused | None = None
        if self.world.leads:
            try:
                self.origin = begin.find_origin(self.spec, self.run, self.model)
                if self.origin is not None:
                    self.origin.load(self.model)
            except Refused as error:
                refusal = error
        [refused] = self.world.from_first(refusal is not None)
        if refused:
            raise refusal or Refused("refused by rank 0, whose log says why")

    def take_over(self, saved: checkpoint.Checkpoint) -> None:
        """Stand where a checkpoint was made."""
        self.model.load_state_dict(saved.weights)
        if saved.optimizer is not None:
            self.optimizer.load_state_dict(saved.optimizer)
        self.window = Window(**saved.window)
        self.samples = self.logged_at = saved.samples

    def compare_positions(self) -> None:
        """Evaluate a child of other lengths before any step, under each treatment of positions.

        And released weights of both towers also where no length changes.
        """
        if not self.spec.evals or self.samples > 0:
            self.origin = None
            return
        if self.world.leads:
            try:
                self.record.add_evals(self.evaluate_treatments())
            finally:
                if self.origin is not None:
                    self.origin.load(self.model)
                    self.origin = None
            self.agree_to_go_on(busy=False)
        else:
            self.wait_for_evaluation()
        # Made anew, on another type of CPU than a resumed run's were, they may differ in last bits.
        self.world.copy_first(self.model.parameters())

    def evaluate_treatments(self) -> list[dict[str, Any]]:
        """Rows of the evals table at sample 0; none if they are there, or nothing is to be said."""
        rows: list[dict[str, Any]] = []
        if self.origin is None or any(row["samples"] == 0 for row in self.record.evals()):
            return rows
        pairs = self.origin.treatments(self.model)
        is_released = bool(self.spec.image_start and self.spec.text_start)
        for image, text in pairs if len(pairs) > 1 or is_released else ():
            self.origin.load(self.model, image, text)
            positions = f"image {image}, text {text}" if len(pairs) > 1 else "as they were"
            found = self.evaluator.evaluate(self.model, 0)
            rows += [{**row, "positions": positions} for row in found]
        return rows

    def meet(self) -> None:
        """Between steps: a sign of life, a save by the clock. Raises StopRequested after a signal.

        Ranks agree on both, about a second apart; see Meetings.
        """
        self.record.beat(self.samples)
        late = time.monotonic() - self.last_saved > CHECKPOINT_SECONDS
        by_clock = not self.spec.checkpoint_every_samples
        number, save = self.meetings.compare(self.stop.number or 0, late and by_clock)
        if number:
            self.signal = int(number)
            raise StopRequested
        if save:
            self.save()

    def step(self) -> None:
        """One optimizer step on one global batch, logged if a row is due."""
        spec = self.spec
        taken = self.stepper.take(self.samples)
        before, self.samples = self.samples, self.samples + spec.batch_size
        self.window.add(taken.loss, taken.batch, self.world)
        every = spec.log_every_samples or math.ceil(spec.samples / LOGGED_ROWS)
        if is_due(before, self.samples, every) or self.samples == spec.samples:
            self.log(taken)

    def log(self, taken: Taken) -> None:
        """Write the window's row. Raises Diverged on no number, or by the rules of watch."""
        grad_norm = self.stepper.gradients.norm()
        self.window.check_finite(self.samples, grad_norm)
        now = time.monotonic()
        means = self.window.means()
        self.record.row(
            {
                "samples": self.samples,
                "loss": means.pop("loss"),
                "lr": taken.lr,
                "temperature": float((-self.model.logit_scale.detach()).exp()),
                "grad_norm": grad_norm,
                "image_tokens_seen": taken.image_tokens,
                "text_tokens_seen": taken.text_tokens,
                **means,
                "samples_per_second": (self.samples - self.logged_at) / (now - self.last_logged),
            }
        )
        self.window, self.last_logged, self.logged_at = Window(), now, self.samples
        if self.spec.stop_diverged:
            self.judge()

    def judge(self) -> None:
        """Raises Diverged where the rows say so, on every rank; rank 0 alone has them all."""
        verdict = None
        if self.world.leads:
            verdict = watch.judge(
                self.record.losses,
                self.spec.objective,
                self.stepper.chance,
                self.spec.batch_size,
                self.spec.warmup_samples,
                self.spec.samples,
            )
        [lost] = self.world.from_first(verdict is not None)
        if lost:
            last = self.run.last_checkpoint()
            at = None if last is None else int(last.name)
            raise Diverged(watch.tell(verdict, at) if verdict else "see rank 0's log")

    def evaluate_if_due(self) -> None:
        """Evaluate at the end and every given number of samples, once."""
        spec, every = self.spec, self.spec.eval_every_samples
        crossed = every > 0 and is_due(self.samples - spec.batch_size, self.samples, every)
        ends = self.samples == spec.samples
        if not spec.evals or not (ends or (crossed and self.samples > 0)):
            return
        began = time.monotonic()
        if self.world.leads:
            if all(row["samples"] != self.samples for row in self.record.evals()):
                self.record.add_evals(self.evaluator.evaluate(self.model, self.samples))
            self.agree_to_go_on(busy=False)
        else:
            self.wait_for_evaluation()
        self.last_logged += time.monotonic() - began  # evaluation is no training time

    def wait_for_evaluation(self) -> None:
        """The other ranks' part of an evaluation. Raises StopRequested when rank 0 does."""
        busy = True
        while busy:
            stop, busy = self.agree_to_go_on(busy=False)
            if stop:
                raise StopRequested

    def agree_to_go_on(self, busy: bool) -> tuple[bool, bool]:
        """Whether to stop in the middle of an evaluation, and whether rank 0 is still busy with it.

        A signal to any rank counts; after the last batch it is too late to stop here.
        """
        self.record.beat(self.samples)
        number, goes_on = self.world.largest(self.stop.number or 0, busy)
        self.signal = int(number)
        return bool(number and goes_on), bool(goes_on)

    def save_if_due(self) -> None:
        """Save every given number of samples; by the clock is decided when ranks meet."""
        every = self.spec.checkpoint_every_samples
        is_cadence = every and is_due(self.samples - self.spec.batch_size, self.samples, every)
        if is_cadence or self.samples in self.spec.keep_samples:
            self.save()

    def save(self) -> None:
        """A checkpoint of this very position; none of a diverged one, which a retry would keep."""
        self.window.check_finite(self.samples)
        if not all(bool(value.isfinite().all()) for value in self.model.parameters()):
            raise Diverged(f"a weight is no number at sample {self.samples}; lower lr")
        if self.world.leads:
            checkpoint.save(
                self.run,
                checkpoint.Checkpoint(
                    self.samples,
                    self.model.state_dict(),
                    self.optimizer.state_dict(),
                    vars(self.window),
                ),
                self.spec.keep_samples,
            )
        self.last_saved = time.monotonic()


def is_due(before: int, after: int, every: int) -> bool:
    """Whether a multiple of `every` lies in (before, after]."""
    return after // every > before // every
