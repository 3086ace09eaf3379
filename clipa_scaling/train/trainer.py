"""Training one run: resume, step, log, evaluate, save, finish."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from clipa_scaling import rundir
from clipa_scaling.models import load_model
from clipa_scaling.rundir import RunDir
from clipa_scaling.spec import RunSpec
from clipa_scaling.train import checkpoint, optim
from clipa_scaling.train.data import Batch, Batches
from clipa_scaling.train.evaluate import Evaluator
from clipa_scaling.train.features import Setting, StopRequested
from clipa_scaling.train.loss import contrastive_loss
from clipa_scaling.train.model import Features, encode_pair, make_model
from clipa_scaling.train.packed import Pack
from clipa_scaling.train.stopping import StopFlag
from clipa_scaling.train.tokens import keep_random

HEARTBEAT_SECONDS = 2.0
CHECKPOINT_SECONDS = 300.0  # where the sweep file names no cadence: what a kill can cost at most
LOGGED_ROWS = 40  # where the sweep file names no cadence


@dataclass
class Window:
    """Sums since the last logged row; part of a checkpoint, so that a resume logs the same."""

    loss: torch.Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.float64))
    steps: int = 0
    text_real: float = 0.0
    text_truncated: float = 0.0
    upsampled: float = 0.0

    def add(self, loss: torch.Tensor, batch: Batch) -> None:
        self.loss = self.loss.to(loss.device) + loss.detach().double()
        self.steps += 1
        self.text_real += batch.text_real
        self.text_truncated += batch.text_truncated
        self.upsampled += batch.upsampled


class Diverged(RuntimeError):
    """The loss is no number any more."""


class Trainer:
    """A run's model, data and place in the stream."""

    def __init__(self, spec: RunSpec, run: RunDir, attempt: int, stop: StopFlag):
        self.spec, self.run, self.attempt, self.stop = spec, run, attempt, stop
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        model = load_model(spec.model)
        self.model = make_model(
            model, spec.image_size, spec.text_tokens, spec.vocab_size, spec.seed
        ).to(self.device)
        self.model.set_grad_checkpointing(spec.grad_checkpointing)
        self.optimizer = optim.make_optimizer(
            self.model, spec.weight_decay, spec.beta1, spec.beta2, spec.epsilon
        )
        self.batches = Batches(
            Pack.open(Path(spec.pack), spec.data_fingerprint),
            batch_size=spec.batch_size,
            image_size=spec.image_size,
            text_tokens=spec.text_tokens,
            crop_min_area=spec.crop_min_area,
            seed=spec.seed,
            window=spec.shuffle_shards,
        )
        self.autocast = spec.precision == "bf16"
        self.evaluator = Evaluator(
            spec.evals,
            Setting(
                image_size=spec.image_size,
                text_tokens=spec.text_tokens,
                batch=spec.eval_batch,
                protocols=spec.protocols,
                device=self.device,
                autocast=self.autocast,
                should_stop=self.should_stop,
            ),
        )
        self.samples = 0
        self.window = Window()
        self.started = self.last_saved = self.last_logged = time.monotonic()
        self.last_beat = 0.0
        self.logged_at = 0
        self.last_row: dict[str, Any] = {}

    def train(self) -> str:
        """Resume, train to the end, evaluate; 'done' or 'stopped'. Raises Diverged."""
        self.resume()
        try:
            while self.samples < self.spec.samples:
                self.evaluate_if_due()
                if self.should_stop():
                    raise StopRequested
                self.step()
                self.save_if_due()
            self.save()
            self.evaluate_if_due()
        except StopRequested:
            self.save()
            self.event("stopped")
            self.write_state("stopped", "stopped by a signal; the same command resumes it")
            return "stopped"
        self.finish()
        return "done"

    def should_stop(self) -> bool:
        """Whether a signal asked to; shows a sign of life first."""
        self.beat()
        return self.stop.is_set

    def resume(self) -> None:
        """Load the last checkpoint, if any, and cut off what was written past it."""
        saved = checkpoint.load(self.run, self.device)
        if saved is not None:
            self.model.load_state_dict(saved.weights)
            if saved.optimizer is not None:
                self.optimizer.load_state_dict(saved.optimizer)
            self.window = Window(**saved.window) if saved.window else Window()
            self.samples = self.logged_at = saved.samples
        rundir.cut_jsonl(self.run.metrics, self.samples)
        kept = [row for row in self.evals() if row["samples"] <= self.samples]
        rundir.write_json(self.run.evals, {"rows": kept})
        rows = rundir.read_jsonl(self.run.metrics)
        self.last_row = rows[-1] if rows else {}
        self.event("resumed" if self.samples else "started")
        self.write_state("running")

    def step(self) -> None:
        """One optimizer step on one global batch; no value is read back from the device."""
        spec = self.spec
        batch = self.batches.at(self.samples)
        lr = optim.cosine_lr(
            spec.lr, self.samples, spec.batch_size, spec.warmup_samples, spec.samples
        )
        optim.set_lr(self.optimizer, lr)
        features = self.forward(batch)
        loss = contrastive_loss(features.image_BE, features.text_BE, features.scale)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        optim.clamp_temperature(self.model.logit_scale)
        before, self.samples = self.samples, self.samples + spec.batch_size
        self.window.add(loss, batch)
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
        window, steps = self.window, self.window.steps
        squares = [p.grad.square().sum() for p in self.model.parameters() if p.grad is not None]
        grad_norm = float(torch.stack(squares).sum().sqrt())
        self.check_finite(grad_norm)
        now = time.monotonic()
        self.last_row = {
            "samples": self.samples,
            "loss": float(window.loss) / steps,
            "lr": lr,
            "temperature": float((-self.model.logit_scale).exp()),
            "grad_norm": grad_norm,
            "image_tokens_seen": features.image_tokens,
            "text_tokens_seen": features.text_tokens,
            "text_tokens_real": window.text_real / steps,
            "text_truncated": window.text_truncated / steps,
            "upsampled_crops": window.upsampled / steps,
            "samples_per_second": (self.samples - self.logged_at) / (now - self.last_logged),
            "attempt": self.attempt,
        }
        rundir.append_jsonl(self.run.metrics, self.last_row)
        self.window, self.last_logged, self.logged_at = Window(), now, self.samples

    def check_finite(self, grad_norm: float = 0.0) -> None:
        """Raise Diverged where the window's loss, or a gradient norm, is no number."""
        loss = float(self.window.loss) / max(1, self.window.steps)
        if not (math.isfinite(loss) and math.isfinite(grad_norm)):
            steps = self.window.steps
            raise Diverged(
                f"loss={loss}, gradient norm={grad_norm} within the {steps} steps before sample "
                f"{self.samples}; lower lr, or lengthen warmup_samples"
            )

    def evaluate_if_due(self) -> None:
        """Evaluate at the end and every given number of samples, once."""
        spec, every = self.spec, self.spec.eval_every_samples
        crossed = every > 0 and is_due(self.samples - spec.batch_size, self.samples, every)
        ends = self.samples == spec.samples
        if not spec.evals or not (ends or (crossed and self.samples > 0)):
            return
        rows = self.evals()
        if any(row["samples"] == self.samples for row in rows):
            return
        began = time.monotonic()
        rows += self.evaluator.evaluate(self.model, self.samples)
        rundir.write_json(self.run.evals, {"rows": rows})
        self.last_logged += time.monotonic() - began  # evaluation is no training time

    def evals(self) -> list[dict[str, Any]]:
        found = rundir.read_json(self.run.evals)
        return [] if found is None else list(found["rows"])

    def save_if_due(self) -> None:
        every = self.spec.checkpoint_every_samples
        if every:
            due = is_due(self.samples - self.spec.batch_size, self.samples, every)
        else:
            due = time.monotonic() - self.last_saved > CHECKPOINT_SECONDS
        if due:
            self.save()

    def save(self) -> None:
        """A checkpoint of this very position; none of a diverged one, which a retry would keep."""
        self.check_finite()
        if not all(bool(value.isfinite().all()) for value in self.model.parameters()):
            raise Diverged(f"a weight is no number at sample {self.samples}; lower lr")
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

    def beat(self) -> None:
        if time.monotonic() - self.last_beat > HEARTBEAT_SECONDS:
            self.write_state("running")

    def write_state(self, state: str, reason: str = "") -> None:
        """The heartbeat: where the run is, for whoever looks."""
        shown = ("loss", "samples_per_second")
        progress = {name: self.last_row.get(name) for name in shown}
        value = {"state": state, "reason": reason, "attempt": self.attempt, **progress}
        rundir.write_json(self.run.state, {**value, "samples": self.samples, "time": time.time()})
        self.last_beat = time.monotonic()

    def event(self, name: str, **more: Any) -> None:
        row = {"time": time.time(), "event": name, "attempt": self.attempt}
        rundir.append_jsonl(self.run.events, {**row, "samples": self.samples, **more})

    def finish(self) -> None:
        """Prove success; done.json is written last."""
        checkpoint.drop_optimizer(self.run)
        self.event("done")
        seconds = time.monotonic() - self.started
        done = {"samples": self.samples, "attempt": self.attempt, "seconds": seconds}
        rundir.write_json(self.run.done, {**done, "loss": self.last_row["loss"]})


def is_due(before: int, after: int, every: int) -> bool:
    """Whether a multiple of `every` lies in (before, after]."""
    return after // every > before // every
