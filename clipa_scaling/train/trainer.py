"""Training one run: resume, step, log, evaluate, save, finish."""

from __future__ import annotations

import math
import signal
import time
from pathlib import Path

import torch

from clipa_scaling.models import load_model
from clipa_scaling.rundir import RunDir
from clipa_scaling.spec import RunSpec
from clipa_scaling.train import checkpoint, optim
from clipa_scaling.train.data import Batch, Batches
from clipa_scaling.train.ending import Diverged
from clipa_scaling.train.evaluate import Evaluator
from clipa_scaling.train.features import Setting, StopRequested
from clipa_scaling.train.finetune import load_parent
from clipa_scaling.train.gradients import Gradients
from clipa_scaling.train.loss import local_loss
from clipa_scaling.train.model import Features, encode_pair, make_model
from clipa_scaling.train.packed import Pack
from clipa_scaling.train.record import Record
from clipa_scaling.train.stopping import Meetings, StopFlag
from clipa_scaling.train.tokens import keep_random
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
            model, spec.image_size, spec.text_tokens, spec.vocab_size, spec.seed
        ).to(self.device)
        self.model.set_grad_checkpointing(spec.grad_checkpointing)
        self.optimizer = optim.make_optimizer(
            self.model, spec.weight_decay, spec.beta1, spec.beta2, spec.epsilon
        )
        self.gradients = Gradients(self.model, world)
        self.batches = Batches(
            Pack.open(Path(spec.pack), spec.data_fingerprint),
            batch_size=spec.batch_size,
            image_size=spec.image_size,
            text_tokens=spec.text_tokens,
            crop_min_area=spec.crop_min_area,
            seed=spec.seed,
            window=spec.shuffle_shards,
            rank=world.rank,
            size=world.size,
        )
        self.autocast = spec.precision == "bf16"
        self.evaluator = Evaluator(
            spec.evals if world.leads else (),
            Setting(
                image_size=spec.image_size,
                text_tokens=spec.text_tokens,
                batch=spec.eval_batch,
                protocols=spec.protocols,
                device=self.device,
                autocast=self.autocast,
                should_stop=lambda: self.agree_to_go_on(busy=True)[0],
            ),
        )
        self.samples = 0
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
            checkpoint.drop_optimizer(self.run)
        self.record.done(self.samples, time.monotonic() - self.started)
        return None

    def resume(self) -> None:
        """Load the last checkpoint, or the parent's weights at first; forget what came past it."""
        last = self.run.last_checkpoint()
        # Rank 0's word: another node may still see the folder as it was.
        [at] = self.world.from_first(-1 if last is None else int(last.name))
        if at >= 0:
            saved = checkpoint.load(self.run, int(at), self.device)
            self.model.load_state_dict(saved.weights)
            if saved.optimizer is not None:
                self.optimizer.load_state_dict(saved.optimizer)
            self.window = Window(**saved.window)
            self.samples = self.logged_at = saved.samples
        elif self.spec.parent and self.world.leads:
            load_parent(self.model, self.run, RunDir(self.run.path.parent / self.spec.parent))
        # The weights that a seed makes may differ in last bits between types of CPU.
        self.world.copy_first(self.model.parameters())
        self.record.begin(self.samples)

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
        """One optimizer step on one global batch; no value is read back from the device."""
        spec = self.spec
        batch = self.batches.at(self.samples)
        lr = optim.cosine_lr(
            spec.lr, self.samples, spec.batch_size, spec.warmup_samples, spec.samples
        )
        optim.set_lr(self.optimizer, lr)
        features = self.forward(batch)
        loss = local_loss(features.image_BE, features.text_BE, features.scale, self.world)
        self.gradients.clear()
        loss.backward()
        self.gradients.average()
        self.optimizer.step()
        optim.clamp_temperature(self.model.logit_scale)
        before, self.samples = self.samples, self.samples + spec.batch_size
        self.window.add(loss, batch, self.world)
        every = spec.log_every_samples or math.ceil(spec.samples / LOGGED_ROWS)
        if is_due(before, self.samples, every) or self.samples == spec.samples:
            self.log(features, lr)

    def forward(self, batch: Batch) -> Features:
        """Features of a batch, its patches reduced before they are embedded."""
        spec = self.spec
        kept_BK = None
        if spec.image_reduction == "random":
            sample_B = batch.sample_B.to(self.device)
            kept_BK = keep_random(spec.seed, sample_B, spec.position_tokens, spec.image_tokens)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.autocast):
            return encode_pair(
                self.model, batch.image_BCHW.to(self.device), batch.text_BT.to(self.device), kept_BK
            )

    def log(self, features: Features, lr: float) -> None:
        """Write the window's row. Raises Diverged on a loss or gradient that is no number."""
        grad_norm = self.gradients.norm()
        self.window.check_finite(self.samples, grad_norm)
        now = time.monotonic()
        means = self.window.means()
        self.record.row(
            {
                "samples": self.samples,
                "loss": means.pop("loss"),
                "lr": lr,
                "temperature": float((-self.model.logit_scale.detach()).exp()),
                "grad_norm": grad_norm,
                "image_tokens_seen": features.image_tokens,
                "text_tokens_seen": features.text_tokens,
                **means,
                "samples_per_second": (self.samples - self.logged_at) / (now - self.last_logged),
            }
        )
        self.window, self.last_logged, self.logged_at = Window(), now, self.samples

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
        if every and is_due(self.samples - self.spec.batch_size, self.samples, every):
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
            )
        self.last_saved = time.monotonic()


def is_due(before: int, after: int, every: int) -> bool:
    """Whether a multiple of `every` lies in (before, after]."""
    return after // every > before // every
