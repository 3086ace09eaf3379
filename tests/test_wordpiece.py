"""WordPiece ids: open_clip's own, packed apart from CLIP's, cut and reduced without an end."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from make_data import write_shards
from small_sweep import SMALL, write_small
from test_tokenize import AWKWARD

from clipa_scaling import sweep as command_line
from clipa_scaling.collect import load_tables
from clipa_scaling.resolve import resolve
from clipa_scaling.source import DataError, Source, fingerprint
from clipa_scaling.spec import SpecError
from clipa_scaling.sweepfile import load_sweep
from clipa_scaling.train.pack import pack
from clipa_scaling.train.packed import Pack
from clipa_scaling.train.reduce import reduce_ids
from clipa_scaling.train.tagging import ADJECTIVE, NOUN, OTHER
from clipa_scaling.train.tokenize import cut_ids, encode_counted, encode_texts, share_cut
from clipa_scaling.train.tokenize import text_lengths as lengths
from clipa_scaling.train.words import WordClasses, decode_words
from clipa_scaling.vocabulary import name_pack
from clipa_scaling.yamlfile import SweepError

LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"
WORDS = "a photo of the dog cat large red ##s ##ing walk many picture thing star ' ! , . & é 日 σ"
PIECES = ["[PAD]", "[unused0]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS.split()]
PIECES += [*LETTERS[1:], *(f"##{letter}" for letter in LETTERS if letter != "s")]
CLS, UNK = PIECES.index("[CLS]"), PIECES.index("[UNK]")


def write_vocabulary(folder: Path, pieces: list[str] = PIECES) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "vocab.txt"
    path.write_text("".join(f"{piece}\n" for piece in dict.fromkeys(pieces)), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def vocab(tmp_path_factory: pytest.TempPathFactory) -> str:
    pytest.importorskip("tokenizers", reason="pip install 'clipa_scaling[wordpiece]'")
    return str(write_vocabulary(tmp_path_factory.mktemp("vocabulary")))


def numbers(*names: str) -> list[int]:
    return [PIECES.index(name) for name in names]


# Ids


TEXTS = [*AWKWARD, "[SEP] a [PAD] dog [CLS] [MASK]", "Dogs WALKING, éa", "a " * 76, "a " * 75]


@pytest.mark.parametrize("tokens", [3, 8, 32, 77])
def test_ids_are_open_clips(vocab: str, tokens: int) -> None:
    pytest.importorskip("transformers", reason="open_clip's tokenizer needs it")
    from open_clip.tokenizer import HFTokenizer

    folder = Path(vocab).parent
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "BertTokenizer", "do_lower_case": True})
    )
    theirs = HFTokenizer(str(folder), context_length=tokens, strip_sep_token=True)
    assert np.array_equal(cut_ids(encode_texts(TEXTS, vocab), tokens), theirs(TEXTS).numpy())


def test_ids_by_hand(vocab: str) -> None:
    ids, cut = encode_counted(["Dogs, walking!", "", "zebra ❄", "a " * 75, "a " * 76], vocab)
    want = [CLS, *numbers("dog", "##s", ",", "walk", "##ing", "!")]
    assert ids[0, :7].tolist() == want and not ids[0, 7:].any()
    assert ids[1, 0] == CLS and not ids[1, 1:].any()
    assert ids[2, :7].tolist() == [CLS, *numbers("z", "##e", "##b", "##r", "##a"), UNK]
    assert lengths(ids).tolist() == [7, 1, 7, 76, 76] and cut == 1
    # The last place is that of the [SEP] that open_clip makes room for, and strips.
    assert cut_ids(ids, 7)[0].tolist() == [*want[:6], 0]
    assert cut_ids(ids, 8)[0].tolist() == [*want, 0]
    assert share_cut(ids[:3], 7) == pytest.approx(2 / 3) and share_cut(ids[:3], 8) == 0


def test_clips_ids_are_told_from_wordpieces(vocab: str) -> None:
    texts = ["a dog", "many a picture of the cat"]
    clip = encode_texts(texts)
    assert lengths(clip).tolist() == [4, 8] and cut_ids(clip, 5)[1, -1] == 49_407
    assert share_cut(clip, 7) == 0.5 and share_cut(clip, 8) == 0
    assert share_cut(encode_texts(texts, vocab), 7) == 0.5


# Reductions


@pytest.mark.parametrize("method", ["random", "block", "syntax"])
def test_reductions_keep_the_start_and_as_many_pieces_as_fit(method: str, vocab: str) -> None:
    text = "a large red dog walking the cat, many a star"
    ids = encode_texts([text, "a dog", "a large red dog and"], vocab)
    classes = WordClasses(lambda word: NOUN if word in ("dog", "cat", "star") else OTHER, vocab)
    kept = reduce_ids(ids, 6, method, 1, np.arange(3), classes.of(ids))
    whole = ids[0, 1 : lengths(ids)[0]].tolist()
    assert kept.shape == (3, 6) and (kept[:, 0] == CLS).all()
    mine = kept[0, 1:].tolist()
    places = [whole.index(number) for number in mine if number != PIECES.index("a")]
    assert len(mine) == 5 and 0 not in mine and places == sorted(places), "in the caption's order"
    if method == "block":
        assert any(mine == whole[i : i + 5] for i in range(len(whole)))
    if method == "syntax":
        assert mine == numbers("a", "large", "dog", "cat", "star")
    assert np.array_equal(kept[1], cut_ids(ids[1:2], 6)[0])


def test_a_caption_that_fits_to_the_last_place_is_kept_whole(vocab: str) -> None:
    ids = encode_texts(["a large red dog ,"], vocab)
    for method in ("random", "block"):
        kept = reduce_ids(ids, 6, method, 1, np.arange(1))
        assert kept[0].tolist() == ids[0, :6].tolist() and kept[0, -1]
    assert reduce_ids(ids, 6, "truncate", 1, np.arange(1))[0, -1] == 0, "open_clip's"


# Words


def test_words_are_joined_pieces(vocab: str) -> None:
    words = decode_words(encode_texts(["Dogs walking, it's 10 zebras! ❄"], vocab)[0], vocab)
    assert words == ["dogs", "walking", ",", "it", "'", "s", "10", "zebras", "!", "[UNK]"]
    ids = encode_texts(["", "dogs ❄", "large " * 90], vocab)
    known = {"dogs": NOUN, "large": ADJECTIVE}
    classes = WordClasses(known.__getitem__, vocab).of(ids)
    assert not classes[0].any() and classes[1, :5].tolist() == [0, NOUN, NOUN, OTHER, 0]
    assert classes[2].tolist() == [0, *[ADJECTIVE] * 75, 0]


# Sweeps and packs


SWEEP = """\
name: words
data:
  train: shards
  store_px: 16
  vocab: words/vocab.txt
  evals:
    held_out: {path: test, task: retrieve, caption: captions}
    classes: {path: test, task: classify}
fixed: {model: T32/8, image_tokens: 4, samples: 32, batch_size: 8, lr: 1e-3, text_tokens: 8, text_pool: last}
axes: {tokenizer: [clip, wordpiece]}
resources: {gpu: cpu-core}
"""  # noqa: E501


def write_sweep(folder: Path, text: str = SWEEP) -> Path:
    write_shards(folder / "shards", 1, 12)
    write_shards(folder / "test", 1, 9)
    write_vocabulary(folder / "words")
    return write_small(folder, text)


def test_captions_are_packed_once_for_each_tokenizer(tmp_path: Path) -> None:
    sweep = load_sweep(write_sweep(tmp_path), tmp_path / "packs")
    clip, words = (planned.spec for planned in sweep.grid.runs)
    assert (clip.vocab_size, words.vocab_size) == (49_408, 32_000)
    source = Source("shards", str(tmp_path / "shards"))
    assert clip.data_fingerprint == fingerprint(source, 16), "as without any vocabulary"
    vocabulary = tmp_path / "words" / "vocab.txt"
    assert words.data_fingerprint == name_pack(clip.data_fingerprint, vocabulary)
    held_out, classes = ([spec.evals[n] for spec in (clip, words)] for n in (0, 1))
    assert classes[0] == classes[1], "pictures alone are the same"
    assert held_out[0].pack != held_out[1].pack
    folders = {request.folder: request.vocab for request in sweep.packs}
    assert len(sweep.packs) == 5
    assert folders[Path(words.pack)] == folders[Path(held_out[1].pack)] == str(vocabulary)
    assert folders[Path(clip.pack)] == folders[Path(classes[0].pack)] == ""
    vocabulary.write_text(vocabulary.read_text() + "more\n")
    later = load_sweep(tmp_path / "small.yaml", tmp_path / "packs").grid.runs
    assert later[0].id == sweep.grid.runs[0].id and later[1].id != sweep.grid.runs[1].id


def test_what_no_run_reads_is_not_packed(tmp_path: Path) -> None:
    path = write_sweep(tmp_path, SWEEP.replace("[clip, wordpiece]", "[wordpiece]"))
    sweep = load_sweep(path, tmp_path / "packs")
    vocabularies = sorted(bool(request.vocab) for request in sweep.packs)
    assert vocabularies == [False, True, True], "the labelled one goes with any"


def test_a_missing_vocabulary_is_missing_data(tmp_path: Path) -> None:
    path = write_sweep(tmp_path)
    (tmp_path / "words" / "vocab.txt").unlink()
    sweep = load_sweep(path, tmp_path / "packs")
    assert sweep.missing is not None and "small.yaml:5: data.vocab: " in sweep.missing
    assert "no such vocabulary; allowed: data.vocab: " in sweep.missing
    assert sweep.grid.runs[1].spec.data_fingerprint == "missing"
    assert [request.vocab for request in sweep.packs] == [""] * 3


def request_of(sweep: Any, run: int) -> tuple[Path, dict[str, Any]]:
    from clipa_scaling.launch.packs import write_request

    folder = Path(sweep.grid.runs[run].spec.pack)
    [asked] = [request for request in sweep.packs if request.folder == folder]
    write_request(asked)
    values: dict[str, Any] = json.loads((folder / "request.json").read_text())
    return folder, values


def test_a_pack_holds_the_vocabulary_and_its_ids(vocab: str, tmp_path: Path) -> None:
    sweep = load_sweep(write_sweep(tmp_path), tmp_path / "packs")
    folder, _ = request_of(sweep, 1)
    pack(folder, 1)
    opened = Pack.open(folder, sweep.grid.runs[1].spec.data_fingerprint)
    assert opened.vocab == str(folder / "vocab.txt")
    assert Path(opened.vocab).read_text() == Path(vocab).read_text()
    captions = [f"picture {number} of many" for number in range(12)]
    assert np.array_equal(opened.texts(77), encode_texts(captions, vocab))
    assert json.loads((folder / "pack.json").read_text())["real_tokens"] == sum(
        5 if number < 10 else 6 for number in range(12)
    )
    plain, _ = request_of(sweep, 0)
    pack(plain, 1)
    assert Pack.open(plain).vocab == "" and not (plain / "vocab.txt").exists()


def test_a_vocabulary_that_changed_since_planning_is_refused(vocab: str, tmp_path: Path) -> None:
    sweep = load_sweep(write_sweep(tmp_path), tmp_path / "packs")
    folder, asked = request_of(sweep, 1)
    Path(asked["vocab"]).write_text(Path(vocab).read_text() + "more\n")
    with pytest.raises(DataError, match="is not the planned .*changed since"):
        pack(folder, 1)


# Rules


TINY: dict[str, Any] = {"model": "T32/8", "image_tokens": 4, "samples": 8, "batch_size": 8}
TINY |= {"lr": 1e-3, "data_fingerprint": "x", "store_px": 16, "tokenizer": "wordpiece"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, "text_pool=eot needs an end token, which tokenizer=wordpiece has not; allowed: last"),
        ({"text_pool": "last", "text_pad": "masked"}, "text_pad=masked needs an end token"),
        ({"text_pool": "last", "vocab_size": 49_408}, "vocab_size=49408 .*allowed: 32000 to"),
    ],
)
def test_what_needs_an_end_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=f"^{message}"):
        resolve({**TINY, **changes})


def test_the_vocabulary_has_the_rows_of_clipas() -> None:
    spec = resolve({**TINY, "text_pool": "last"})
    assert spec.vocab_size == 32_000 and replace(spec, tokenizer="clip") != spec


def test_a_mistake_is_placed_in_the_file(tmp_path: Path) -> None:
    path = write_sweep(tmp_path, SWEEP.replace("text_pool: last", "text_pool: eot"))
    with pytest.raises(SweepError, match="small.yaml:9: fixed.text_pool: text_pool=eot needs an"):
        load_sweep(path, tmp_path / "packs")


# Evaluated later


def test_captions_of_later_sets_are_packed_in_the_ids_of_the_run(
    tmp_path: Path, vocab: str, capsys: pytest.CaptureFixture[str]
) -> None:
    text = SMALL.replace("store_px: 16", f"store_px: 16\n  vocab: {vocab}")
    text = text.replace("model: T32/8", "model: T32/8\n  tokenizer: wordpiece\n  text_pool: last")
    text = text.replace("samples: 1_024", "samples: 128").replace("[resize, random]", "[resize]")
    text = "".join(
        line for line in text.splitlines(True) if not line.startswith(("rules", "  - {"))
    )
    sweep = write_small(tmp_path, text)
    places = ["--runs", str(tmp_path / "runs"), "--results", str(tmp_path / "results")]

    def call(*options: str) -> str:
        assert command_line.main([str(sweep), *options, "--cluster", "inline", *places]) == 0
        return capsys.readouterr().out

    call()
    assert "nothing to evaluate" in call("--evaluate")
    new = tmp_path / "new.yaml"
    new.write_text("evals: {late: {path: scenes, task: retrieve, pairs: 64, seed: 9}}\n")
    assert "late: common, training size: 1 of 1 runs" in call("--evaluate", str(new))
    assert "nothing to evaluate" in call("--evaluate", str(new))
    evals = load_tables(tmp_path / "results/small")["evals"]
    late = evals[evals["set"] == "late"]
    assert len(late) == 7 and late["by"].notna().all() and late["truncated"].notna().all()
    [asked] = {
        json.loads(path.read_text())["evals"][0]["pack"]
        for path in (tmp_path / "runs").glob("evaluate-*/spec.json")
    }
    assert Pack.open(Path(asked)).vocab, "ids of CLIP's BPE would mean other words"
