"""An Arrow schema as text, for manifests and for bundles."""

import base64

import pyarrow as pa


def schema_to_text(schema: pa.Schema) -> str:
    """Without the schema's metadata, which pandas and others fill with their own."""
    return base64.b64encode(schema.remove_metadata().serialize().to_pybytes()).decode()


def schema_from_text(text: str) -> pa.Schema:
    """The inverse of `schema_to_text`."""
    return pa.ipc.read_schema(pa.py_buffer(base64.b64decode(text)))
