"""Files with encrypted columns are read without them; one with an encrypted footer is refused."""

import base64
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.parquet.encryption as encryption
import pytest

from configs.errors import UserError
from configs.schema import Config, DataConfig, DenseFeature, TaskConfig, TrainingConfig
from embeddings.features.feature_transforms import FeatureTransforms
from trainer.data.columns.checks import check_manifest
from trainer.data.columns.statistics import StatisticsCheck
from trainer.data.dataset.largest import largest
from trainer.data.dataset.scan import build_manifest
from trainer.data.inspection.inspect_data import inspect_data
from trainer.data.reading.decode import Decoder

TABLE = pa.table({"x": [1.0, 2.0], "secret": [{"a": 1}, {"a": 2}], "click": [0, 1], "secrets": [3, 4]})
TASKS = {"click": TaskConfig()}


class Keys(encryption.KmsClient):
    """Wraps keys in nothing but base64."""

    def wrap_key(self, key_bytes: bytes, master_key_identifier: str) -> bytes:
        return base64.b64encode(key_bytes)

    def unwrap_key(self, wrapped_key: bytes, master_key_identifier: str) -> bytes:
        return base64.b64decode(wrapped_key)


def write(path: Path, plaintext_footer: bool) -> None:
    factory = encryption.CryptoFactory(lambda _: Keys())
    settings = encryption.EncryptionConfiguration(
        footer_key="f", column_keys={"c": ["secret.a"]}, plaintext_footer=plaintext_footer
    )
    properties = factory.file_encryption_properties(encryption.KmsConnectionConfig(), settings)
    with pq.ParquetWriter(path, TABLE.schema, encryption_properties=properties) as writer:
        writer.write_table(TABLE, row_group_size=1)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write(tmp_path / "b.parquet", plaintext_footer=True)
    pq.write_table(TABLE, tmp_path / "a.parquet")
    return tmp_path


def look_at(tasks: dict[str, TaskConfig], weight_column: str | None) -> StatisticsCheck:
    data = DataConfig(root="", weight_column=weight_column)
    return StatisticsCheck(tasks, data, FeatureTransforms({}, {}), evaluates=False)


def test_other_columns_are_read(root: Path) -> None:
    said: list[str] = []
    manifest = build_manifest(str(root), look=look_at(TASKS, "x"), say=said.append)
    assert said == [f"skipped in {root}: 1 encrypted column (secret in b.parquet)"]
    assert [manifest.schemas[file.schema].names for file in manifest.files] == [
        ["x", "secret", "click", "secrets"],
        ["x", "click", "secrets"],
    ]
    assert largest(manifest, "secrets", "") == [(4, 2), (3, 1), (4, 1)]
    decoder = Decoder(manifest, DataConfig(root=""), FeatureTransforms({"secrets": DenseFeature()}, {}), TASKS, None)
    assert decoder(2).dense.tolist() == [[4.0]]


def test_the_column_cannot_be_asked_for(root: Path) -> None:
    config = Config(
        data=DataConfig(root=""),
        features={"secret": DenseFeature()},
        tables={},
        tasks=TASKS,
        training=TrainingConfig(run_dir="r"),
    )
    with pytest.raises(UserError, match=r"b\.parquet: there is no column 'secret'"):
        check_manifest(build_manifest(str(root)), FeatureTransforms(config.features, {}), config)


def test_ranges_of_plain_columns_are_checked(root: Path) -> None:
    (root / "a.parquet").unlink()
    with pytest.raises(UserError, match=r"column 'secrets' goes from 3 to 3"):
        build_manifest(str(root), look=look_at({"secrets": TaskConfig()}, None))


def test_files_are_inspected_without_it(root: Path) -> None:
    text, values = inspect_data(str(root))
    assert "1 encrypted column (secret in b.parquet)" in text.replace("\n  ", " ")
    assert {name: column["rows"] for name, column in values["parts"][root.name]["columns"].items()} == {
        "x": 4,
        "secret": 2,
        "click": 4,
        "secrets": 4,
    }


def test_an_encrypted_footer_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "000000_0", plaintext_footer=False)
    with pytest.raises(UserError, match="000000_0 has an encrypted footer"):
        build_manifest(str(tmp_path))
