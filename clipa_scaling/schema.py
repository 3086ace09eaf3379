"""Every column of every table: dtype, unit, axis label, meaning.

python -m clipa_scaling.schema prints them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


class TableError(ValueError):
    """Tables, or what they are made of, contradict themselves; one line with the way out."""


@dataclass(frozen=True)
class Column:
    """One column; `dtype` is a pandas dtype that can hold a missing value."""

    name: str
    dtype: str
    unit: str
    label: str
    meaning: str


def _table(*rows: tuple[str, str, str, str, str]) -> dict[str, Column]:
    return {row[0]: Column(*row) for row in rows}


TRIAL_STAGES = ("tune", "transfer")  # of short runs that tune a field, and are no cells

SPEC = _table(
    ("kind", "string", "", "Kind", "pretrain, decay, finetune or evaluate"),
    ("parent", "string", "", "Parent", "run id of the parent stage; empty for a first stage"),
    ("model", "string", "", "Model", "size and patch, e.g. B/16"),
    (
        "image_tokens",
        "Int64",
        "tokens",
        "Image tokens",
        "patch tokens the image tower sees, no CLS",
    ),
    (
        "text_tokens",
        "Int64",
        "tokens",
        "Text tokens",
        "text positions, special tokens and padding in",
    ),
    ("image_reduction", "string", "", "Image reduction", "how image tokens are reduced"),
    ("text_reduction", "string", "", "Text reduction", "how text tokens are reduced"),
    (
        "image_size",
        "Int64",
        "px",
        "Image size (px)",
        "pixels a side before masking; 0 is 224, or what resize needs",
    ),
    ("word_classes", "string", "", "Word classes", "what told nouns from verbs; empty: not asked"),
    ("tokenizer", "string", "", "Tokenizer", "clip: CLIP's BPE; wordpiece: BERT's, as CLIPA's"),
    ("vocab_size", "Int64", "", "Vocabulary", "rows of the token embedding"),
    ("image_position", "string", "", "Image positions", "learned, or sincos: fixed, per grid"),
    ("image_pool", "string", "", "Image pooling", "cls, mean of the patches, mean_with_cls"),
    ("ln_pre", "boolean", "", "First norm", "a norm before the image transformer"),
    ("ln_after_pool", "boolean", "", "Norm after pooling", "the image's last norm after pooling"),
    ("text_causal", "boolean", "", "Causal text", "each text token sees the ones before it only"),
    ("text_pool", "string", "", "Text pooling", "eot: the end token; last: the last position"),
    ("text_pad", "string", "", "Text padding", "seen by attention, or masked"),
    ("logit_scale_init", "Float64", "", "First logit scale", "0 is 1 / 0.07, for siglip 10"),
    ("logit_scale_max", "Float64", "", "Largest logit scale", "0 is no limit"),
    ("logit_bias_init", "Float64", "", "First logit bias", "siglip's; 0 is -10"),
    ("start_fingerprint", "string", "", "First weights", "of image_start and text_start; or empty"),
    ("fresh_weights", "string", "", "Fresh weights", "what may not fit the weights started from"),
    ("image_position_change", "string", "", "Image positions at a new length", "interpolate, "
     "recompute or extend"),
    ("text_position_change", "string", "", "Text positions at a new length", "interpolate or "
     "extend"),
    ("objective", "string", "", "Objective", "contrastive, siglip, or classify: labelled pictures"),
    ("class_prompts", "string", "", "Training prompts", "of objective: classify"),
    ("evaluations", "string", "", "Evaluations", "of kind evaluate: benchmark, protocol, size, "
     "evaluator"),
    ("data_fingerprint", "string", "", "Data", "fingerprint of the training data"),
    ("pixels", "string", "", "Pixel path", "packed"),
    ("store_px", "Int64", "px", "Stored size (px)", "pixels a side in the pack"),
    ("shuffle_shards", "Int64", "shards", "Shuffle window", "shards shuffled together"),
    ("crop_min_area", "Float64", "", "Smallest crop area", "share of the picture; 1 is no crop"),
    ("color_jitter", "Float64", "", "Color jitter", "strength; hue a quarter of it; 0 is none"),
    ("color_jitter_share", "Float64", "", "Jittered share", "of the pictures"),
    ("grayscale_share", "Float64", "", "Grayscale share", "of the pictures"),
    ("samples", "Int64", "samples", "Samples seen", "image-text pairs seen, whole steps"),
    ("batch_size", "Int64", "samples", "Batch size", "pairs per step, over all devices"),
    ("lr", "Float64", "", "Learning rate", "peak learning rate"),
    ("schedule", "string", "", "Schedule", "after warm-up: cosine, constant, or wsd: constant, "
     "then decay"),
    ("warmup_samples", "Int64", "samples", "Warm-up samples", "samples of linear warm-up"),
    ("decay_samples", "Int64", "samples", "Decay samples", "wsd's last part; 0 is a fifth"),
    ("decay_shape", "string", "", "Decay shape", "linear, or sqrt: 1 - sqrt(share of the decay)"),
    ("weight_decay", "Float64", "", "Weight decay", "AdamW's"),
    ("weight_decay_on", "string", "", "Decayed weights", "matrices, or kernels: no tables"),
    ("grad_clip", "Float64", "", "Gradient clipping", "largest norm; 0 is no limit"),
    ("beta1", "Float64", "", "Adam beta 1", "AdamW's"),
    ("beta2", "Float64", "", "Adam beta 2", "AdamW's"),
    ("epsilon", "Float64", "", "Adam epsilon", "AdamW's"),
    ("precision", "string", "", "Precision", "bf16 (autocast) or fp32"),
    ("seed", "Int64", "", "Seed", "keys everything random"),
)  # fmt: skip

COST = _table(
    ("image_params", "Int64", "", "Image parameters", "image tower, position table in"),
    ("text_params", "Int64", "", "Text parameters", "text tower, embedding tables in"),
    ("total_params", "Int64", "", "Parameters", "both towers and the temperature"),
    (
        "nonembedding_params",
        "Int64",
        "",
        "Parameters without tables",
        "no token or position tables",
    ),
    ("flops_per_sample", "Float64", "FLOPs", "FLOPs per sample", "one forward of both towers"),
    ("train_flops", "Float64", "FLOPs", "Training FLOPs", "3 x samples x flops_per_sample"),
    ("recompute_flops", "Float64", "FLOPs", "Recomputed FLOPs", "gradient checkpointing's share"),
    ("memory_bytes", "Float64", "bytes", "Memory (estimate)", "training memory on each device"),
    ("checkpoint_bytes", "Float64", "bytes", "Checkpoint", "one checkpoint with optimizer state"),
    ("gpu_hours", "Float64", "h", "GPU-hours", "device hours planned; priced_by says how"),
    ("dollars", "Float64", "$", "Dollars", "gpu_hours x price; missing without a price"),
    ("priced_by", "string", "", "Priced by", "assumed utilisation, given utilisation, or measured"),
)

STATE = _table(
    ("run", "string", "", "Run", "run id"),
    ("stage", "string", "", "Stage", "the stage's name in the sweep file"),
    ("state", "string", "", "State", "planned, blocked, running, stopped, lost, failed, diverged, "
     "done or excluded"),
    ("reason", "string", "", "Reason", "why it failed, is blocked or excluded"),
)  # fmt: skip

OUTCOME = _table(
    ("accuracy", "Float64", "", "Zero-shot accuracy (%)", "top-1 of the first classification set "
     "at the end"),
    ("accuracy_n", "Int64", "", "Evaluation pictures", "pictures behind accuracy"),
    ("accuracy_set", "string", "", "Evaluation set", "the set behind accuracy"),
    ("loss", "Float64", "nats", "Training loss", "mean over the last logged window"),
    ("image_tokens_seen", "Int64", "tokens", "Image tokens seen", "from the tensor, in training"),
    ("text_tokens_seen", "Int64", "tokens", "Text tokens seen", "from the tensor, in training"),
    ("text_tokens_real", "Float64", "tokens", "Real text tokens", "mean, no padding, last window"),
    ("text_truncated", "Float64", "", "Truncated captions", "share cut short, last window"),
    ("eval_image_tokens", "Int64", "tokens", "Image tokens in evaluation", "no mask in evaluation"),
    ("upsampled_crops", "Float64", "", "Upsampled crops", "share of crops below the image size, "
     "last window"),
    ("samples_per_second", "Float64", "1/s", "Samples per second", "median over logged windows"),
    ("seconds", "Float64", "s", "Wall time (s)", "training and evaluation of the last attempt"),
    ("gpu_hours_used", "Float64", "h", "GPU-hours used", "device hours of all attempts; beside "
     "gpu_hours, the plan's"),
    ("attempts", "Int64", "", "Attempts", "how often the run was started"),
    ("revision", "string", "", "Revision", "git revision of the last attempt"),
    ("host_cpu", "string", "", "CPU", "processor of the last attempt"),
    ("device", "string", "", "Device", "cpu or the GPU's name, last attempt"),
)  # fmt: skip

ORIGIN = _table(
    ("tuned", "string", "", "Tuned", "fields whose values tuning chose; empty: none"),
    ("left_out", "string", "", "Left out", "why, by whom and when exclusions.yaml leaves it out of "
     "fits and figures; else missing"),
    ("imported", "string", "", "Imported from", "a file of another program; empty: our own run"),
)  # fmt: skip

RUNS = {**STATE, **SPEC, **COST, **OUTCOME, **ORIGIN}

EVALS = _table(
    ("run", "string", "", "Run", "run id"),
    ("samples", "Int64", "samples", "Samples seen", "when it was evaluated"),
    ("set", "string", "", "Evaluation set", "its name in the sweep file"),
    ("fingerprint", "string", "", "Benchmark", "of the evaluation set, its task and prompts"),
    ("protocol", "string", "", "Protocol", "common: the sweep's prompts; paper: 80 templates"),
    ("size", "string", "", "Evaluation size", "training: pictures as in training; full: full size"),
    ("evaluation", "string", "", "Evaluation", "16 hex digits of pictures, encoded texts, task, "
     "protocol and evaluator; measures of one curve share it"),
    ("evaluator", "Int64", "", "Evaluator", "version of how evaluations are made"),
    ("by", "string", "", "Evaluated by", "run id of an evaluation made later; empty: the run"),
    ("positions", "string", "", "Positions", "how a child's position tables were treated, in rows "
     "before its first step; else missing"),
    ("name", "string", "", "Measure", "accuracy, accuracy_top5, accuracy_per_class (mean over "
     "classes), image_to_text_r1 ..., loss"),
    ("value", "Float64", "", "Value", "a fraction in [0, 1], nats for loss; or unknown"),
    ("n", "Int64", "", "Examples", "examples behind the value"),
    ("eval_image_tokens", "Int64", "tokens", "Image tokens in evaluation", "from the tensor"),
    ("truncated", "Float64", "", "Truncated texts", "share of prompts or captions cut short"),
    ("correct", "string", "", "Correctness", "per-example bits, base64 of packed bits; or empty"),
    ("clusters", "string", "", "Clusters", "examples of each picture: one number, or "
     "counts; empty: 1"),
)  # fmt: skip

CURVES = _table(
    ("run", "string", "", "Run", "run id"),
    ("samples", "Int64", "samples", "Samples seen", "at the end of the window"),
    ("loss", "Float64", "nats", "Training loss", "mean over the window"),
    ("lr", "Float64", "", "Learning rate", "of the last step"),
    ("temperature", "Float64", "", "Temperature", "1 / exp(logit scale), last step"),
    ("grad_norm", "Float64", "", "Gradient norm", "of the last step"),
    ("image_tokens_seen", "Int64", "tokens", "Image tokens seen", "from the tensor"),
    ("text_tokens_seen", "Int64", "tokens", "Text tokens seen", "from the tensor"),
    ("text_tokens_real", "Float64", "tokens", "Real text tokens", "mean without padding"),
    ("text_truncated", "Float64", "", "Truncated captions", "share cut short"),
    ("upsampled_crops", "Float64", "", "Upsampled crops", "share of crops below the image size"),
    ("samples_per_second", "Float64", "1/s", "Samples per second", "over the window"),
    ("attempt", "Int64", "", "Attempt", "which start of the run wrote the row"),
)

PIPELINES = _table(
    ("pipeline", "string", "", "Pipeline", "run id of the last stage, which no other starts from"),
    ("model", "string", "", "Model", "size and patch, e.g. B/16"),
    ("seed", "Int64", "", "Seed", "of the last stage"),
    ("stages", "string", "", "Stages", "names of the stages in their order, e.g. pretrain > tune"),
    ("state", "string", "", "State", "of the last stage"),
    ("left_out", "string", "", "Left out", "why exclusions.yaml leaves it out; else missing"),
    ("set", "string", "", "Evaluation set", "the set behind all values"),
    ("full", "string", "", "Full-length pipeline", "that the drop is from: same model, seed and "
     "settings, longest in every stage; missing without one"),
    ("drop", "Float64", "points", "Drop (points)", "100 x (last value of full - last value)"),
    ("pipeline_flops", "Float64", "FLOPs", "Training FLOPs of the pipeline", "sum of train_flops"),
    ("pipeline_hours", "Float64", "h", "GPU-hours of the pipeline", "sum of gpu_hours, the plan's"),
    ("pipeline_hours_used", "Float64", "h", "GPU-hours used by the pipeline", "sum of "
     "gpu_hours_used"),
    ("pipeline_dollars", "Float64", "$", "Dollars of the pipeline", "sum of dollars"),
)  # fmt: skip

# Columns of each stage, named stage_column, e.g. finetune_accuracy.
PIPELINE_STAGE = _table(
    ("run", "string", "", "run", "run id"),
    *((name, "Int64", SPEC[name].unit, SPEC[name].label.lower(), SPEC[name].meaning)
      for name in ("image_tokens", "text_tokens")),
    *((name, "string", "", SPEC[name].label.lower(), SPEC[name].meaning)
      for name in ("image_reduction", "text_reduction")),
    ("samples", "Int64", "samples", "samples seen", "of this stage"),
    ("before", "Float64", "", "before", "the value before its first step, with the position tables "
     "that it starts from; missing where no length changed"),
)  # fmt: skip


def pipeline_columns(stages: Iterable[str], measure: str) -> dict[str, Column]:
    """The columns of a `pipelines` table: per stage those of PIPELINE_STAGE, then its value.

    Nothing is before the first stage.

    measure: the value's name in `evals`, e.g. accuracy, at the stage's last step.
    """
    columns = dict(PIPELINES)
    value = Column(measure, "Float64", "", measure.replace("_", " "), "after its last step")
    for position, stage in enumerate(stages):
        for item in (*PIPELINE_STAGE.values(), value):
            if item.name == "before" and position == 0:
                continue
            name, title = f"{stage}_{item.name}", f"{stage.capitalize()}: {item.label}"
            meaning = f"{stage}: {item.meaning}"
            columns[name] = Column(name, item.dtype, item.unit, title, meaning)
    return columns


TUNED = _table(
    ("field", "string", "", "Tuned field", "what was tuned; before it, the fields it is tuned per"),
    ("value", "Float64", "", "Tuned value", "what cells take, in two digits; missing: not known"),
    ("low", "Float64", "", "Lower end", "of the optimum's 95 % interval; missing: unknown"),
    ("high", "Float64", "", "Upper end", "of the optimum's 95 % interval; missing: unknown"),
    ("interval", "string", "", "Interval", "why it is missing, or reaches from 0 to infinity"),
    ("points", "Int64", "", "Points", "runs behind the parabola"),
    ("ladder", "string", "", "Ladder", "the values tried, those added at an edge too"),
    ("measure", "string", "", "Measure", "what values are judged by: loss, or accuracy"),
    ("set", "string", "", "Evaluation set", "the set behind the measure"),
    ("at_samples", "Int64", "samples", "Samples of short runs", "whole steps"),
    ("flag", "string", "", "Flag", "why the value is a tried one, no minimum of a parabola"),
    ("transfer_samples", "Int64", "samples", "Samples of longer runs", "missing: not checked"),
    ("transfer_ratio", "Float64", "", "Ratio", "the longer runs' optimum over the short ones'"),
    ("transfer_low", "Float64", "", "Lower end", "of the ratio's 95 % interval"),
    ("transfer_high", "Float64", "", "Upper end", "of the ratio's 95 % interval"),
    ("transfer_flag", "string", "", "Transfer's flag", "of the longer runs' optimum"),
)  # fmt: skip


def label(name: str) -> str:
    """The axis label of a column in any table; KeyError for a name that no table has."""
    return (PIPELINES | RUNS | EVALS | CURVES)[name].label


def list_columns() -> str:
    """Every column of every table, a line each: name, unit, meaning."""
    lines = []
    pipelines = pipeline_columns(["STAGE"], "accuracy")
    tables = {"runs": RUNS, "evals": EVALS, "curves": CURVES, "pipelines": pipelines}
    tables["tuned"] = TUNED
    for table, columns in tables.items():
        lines.append(table)
        lines += [f"  {item.name:<22}{item.unit:<9}{item.meaning}" for item in columns.values()]
    return "\n".join(lines)


if __name__ == "__main__":
    print(list_columns())
