"""Calibrated predictions: fitted on labels of the validation part, computed in the program, told in the card."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from torch._inductor import config as inductor

from configs.errors import UserError
from models.build import top_of
from tests.trainer.export import exported_runs
from tests.trainer.export.exported_runs import DENSE, make_run, rows
from trainer.export.calibration import Calibration, Labelled, calibrated, fit, quality, report
from trainer.export.onnx import onnx_predictions
from trainer.export.parity import ParityError
from trainer.export.write import export
from trainer.serving.bundle import Bundle
from trainer.telemetry.auc import auc

TASKS = {"click": {}, "like": {"positive_weight": 5.0}, "watch": {"loss": "mse"}}
BOTH = {"click": "isotonic", "like": "platt"}
LOOSE = {"max_auc_change": 0.01}  # many rows of a top of random weights are equal but for their rounding


@pytest.fixture(scope="module", autouse=True)
def no_compiler():
    with inductor.patch({"cpp.cxx": ("/no/such/compiler",)}):
        yield


def _larger(config):
    """A top whose predictions differ by more than their rounding, as those of initial weights do not."""
    top = top_of(config)
    for weight in top.parameters():
        weight.data *= 2.5 if weight.dim() > 1 else 1
    return top


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """A run whose predictions order rows well and are far from the rates of its labels."""
    folder, random = tmp_path_factory.mktemp("calibration"), np.random.default_rng(0)
    data = rows(3000).append_column("like", pa.array(np.zeros(3000))).append_column("watch", pa.array(np.zeros(3000)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exported_runs, "top_of", _larger)
        config = make_run(folder, DENSE, TASKS, data=data)
    found = Bundle(export(config.training.run_dir, str(folder / "plain"), settings=LOOSE)).predict(data)
    for place, name in enumerate(BOTH):
        z = (found[:, place] - found[:, place].mean()) / found[:, place].std()
        labels = random.random(3000) < 1 / (1 + np.exp(2.5 - 1.5 * z))
        data = data.set_column(data.column_names.index(name), name, pa.array(labels.astype(np.int64)))
    pq.write_table(data, folder / "data" / "validation" / "part-0.parquet")
    return config


@pytest.fixture(scope="module")
def both(config, tmp_path_factory):
    """(before, after, labels) of the rows, by a bundle without and with calibration, and the latter."""
    folder = tmp_path_factory.mktemp("both")
    data = pq.read_table(f"{config.data.root}/validation/part-0.parquet")
    settings = {**LOOSE, "calibration": BOTH, "scores": {"rank": "click * 2 + like"}}
    bundle = Bundle(export(config.training.run_dir, str(folder / "b"), settings=settings))
    before = Bundle(f"{config.data.root}/../plain").predict(data)
    return before, bundle.predict(data), np.stack([data[name].to_numpy() for name in BOTH], axis=1), bundle


def test_predictions_become_rates_and_their_order_stays(both):
    before, after, labels, _ = both
    for place in (0, 1):
        counted = torch.from_numpy(labels[:, place]).float(), torch.ones(len(labels))
        was, now = (auc(torch.from_numpy(found[:, place].copy()), *counted) for found in (before, after))
        assert now >= was - 1e-3
        assert now > 0.7
        assert abs(before[:, place].mean() / labels[:, place].mean() - 1) > 0.5
        assert after[:, place].mean() == pytest.approx(labels[:, place].mean(), rel=0.03)
        found = quality(after[:, place].astype(np.float64), labels[:, place], np.ones(len(labels)))
        assert found.error < 0.02
    np.testing.assert_array_equal(before[:, 2], after[:, 2])


def test_scores_take_calibrated_predictions(both):
    _, after, _, _ = both
    np.testing.assert_allclose(after[:, 3], after[:, 0] * 2 + after[:, 1], atol=1e-6)


def test_the_card_says_what_it_did(both):
    *_, bundle = both
    card = (bundle.folder / "README.md").read_text()
    for task, kind in BOTH.items():
        found = bundle.signature.calibration[task]
        assert found.after.log_loss < found.before.log_loss - 0.1
        assert found.after.error < found.before.error / 4
        assert found.after.ratio == pytest.approx(1, abs=0.06)
        losses = f"{found.before.log_loss:.5f} -> {found.after.log_loss:.5f}"
        assert f"| `{task}` | {kind} | 3,000 | {losses} |" in card
    assert bundle.signature.parity.largest_difference <= 1e-6


@pytest.mark.slow
def test_onnx_has_it_too(config, tmp_path):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    settings = {**LOOSE, "calibration": BOTH, "format": "onnx", "scores": {"rank": "click ** 0.5 * like"}}
    bundle = Bundle(export(config.training.run_dir, str(tmp_path / "b"), settings=settings))
    columns = bundle.columns(pq.read_table(f"{config.data.root}/validation/part-0.parquet"), "rows")
    found = onnx_predictions(bundle.folder, bundle.signature.groups, bundle.signature.dense_width, columns)
    np.testing.assert_allclose(found, bundle.score(columns), atol=1e-5)
    np.testing.assert_allclose(found[:, 3], found[:, 0] ** 0.5 * found[:, 1], atol=1e-5)


def test_a_program_that_calibrates_otherwise_is_refused(config, tmp_path, monkeypatch):
    monkeypatch.setattr("trainer.export.write_programs.calibrated", lambda kind, numbers, plain, logits: plain)
    with pytest.raises(ParityError, match="trainer and bundle differ by"):
        export(config.training.run_dir, str(tmp_path / "b"), settings={**LOOSE, "calibration": {"like": "platt"}})
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"calibration": {"clik": "platt"}}, "export.calibration.clik: 'clik' is no task; there are: click, like"),
        ({"calibration": {"watch": "platt"}}, "'watch' predicts no probability\nCalibrate tasks"),
        ({"calibration": BOTH, "parity_rows": 0}, "no rows of the validation part can be read\nIt is fitted on"),
        ({"calibration": BOTH, "parity_rows": 150}, "150 of 150 rows of .* have a label, .* takes 200 with 10 of"),
    ],
)
def test_what_cannot_be_calibrated_is_refused(config, tmp_path, settings, message):
    with pytest.raises(UserError, match=message):
        export(config.training.run_dir, str(tmp_path / "b"), settings=settings)
    assert not (tmp_path / "b").exists()


def test_labels_of_one_kind_are_refused(tmp_path):
    data = rows(300).set_column(9, "click", pa.array(np.zeros(300)))
    config = make_run(tmp_path, DENSE, {"click": {}}, data=data)
    with pytest.raises(UserError, match=r"300 of 300 rows of .* have a label, 0 of them positive"):
        export(config.training.run_dir, settings={"calibration": {"click": "platt"}})


@pytest.fixture
def overconfident():
    """Logits twice what they should be, and 1 too high; rows of weight 3 among others."""
    random = np.random.default_rng(3)
    right = random.normal(-2, 1, 20_000)
    labels = (random.random(20_000) < 1 / (1 + np.exp(-right))).astype(np.float64)
    logits = 2 * right + 1
    return 1 / (1 + np.exp(-logits)), logits, Labelled(np.arange(20_000), labels, random.choice([1.0, 3.0], 20_000))


def test_platt_finds_what_was_done_to_the_logits(overconfident):
    found = fit("platt", "click", *overconfident)
    np.testing.assert_allclose(found.numbers, [0.5, -0.5], atol=0.05)


@pytest.mark.parametrize("kind", ["platt", "isotonic"])
def test_it_rises_and_the_program_agrees(overconfident, kind):
    found = fit(kind, "click", *overconfident)
    p = torch.cat((torch.linspace(0, 1, 9999), torch.from_numpy(found.numbers.ravel()).clamp(0, 1))).sort().values
    logits = torch.logit(p, 1e-6)
    ours = calibrated(kind, torch.from_numpy(found.numbers), p, logits).numpy()
    np.testing.assert_allclose(ours, found(p.numpy(), logits.numpy()), atol=1e-6)
    assert (np.diff(found(p.numpy(), logits.numpy())) >= 0).all()
    assert 0 < ours.min() < ours.max() < 1
    told = report(found, *overconfident)
    assert told.after.error < 0.01 < told.before.error
    assert found.numbers.shape == ((2,) if kind == "platt" else (2, 102))


@pytest.mark.parametrize("kind", ["platt", "isotonic"])
def test_predictions_that_fall_with_labels_are_refused(overconfident, kind):
    predictions, logits, labelled = overconfident
    with pytest.raises(UserError, match=r"export.calibration.click: predictions do not rise with labels"):
        fit(kind, "click", 1 - predictions, -logits, labelled)


def test_quality_by_hand():
    found = quality(np.array([0.25, 0.75]), np.array([0.0, 1.0]), np.array([1.0, 3.0]))
    assert found.log_loss == pytest.approx(-np.log(0.75))
    assert found.ratio == pytest.approx((0.25 + 3 * 0.75) / 3)
    assert found.error == pytest.approx((0.25 + 3 * 0.25) / 4)


def test_no_group_is_certain():
    predictions = np.linspace(0.1, 0.9, 1000)
    labelled = Labelled(np.arange(1000), (predictions > 0.5).astype(np.float64), np.ones(1000))
    found: Calibration = fit("isotonic", "click", predictions, predictions, labelled)
    low, high = found(np.array([0.0, 1.0]), np.zeros(2))
    assert 0 < low < 0.001
    assert 0.999 < high < 1
