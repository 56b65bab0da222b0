"""The gRPC messages of the Open Inference Protocol and of Triton's extensions that this server offers.

Written after the public definitions (Apache-2.0): https://github.com/kserve/open-inference-protocol and
https://github.com/triton-inference-server/common, protobuf/grpc_service.proto and model_config.proto. Made at run time
in a pool of their own: whatever other library of the process has its own copy of them, they don't meet, and nothing
generated has to fit the version of protobuf.

A line is a message and its fields: NAME:TYPE=NUMBER; * repeated, {} a map of strings to TYPE, | one of several.
"""

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

PACKAGE = "inference"
SERVICE = "inference.GRPCInferenceService"

_MESSAGES = """
ServerLiveRequest
ServerLiveResponse live:bool=1
ServerReadyRequest
ServerReadyResponse ready:bool=1
ModelReadyRequest name:string=1 version:string=2
ModelReadyResponse ready:bool=1
ServerMetadataRequest
ServerMetadataResponse name:string=1 version:string=2 extensions:string*=3
ModelMetadataRequest name:string=1 version:string=2
ModelMetadataResponse.TensorMetadata name:string=1 datatype:string=2 shape:int64*=3
ModelMetadataResponse name:string=1 versions:string*=2 platform:string=3 \
inputs:ModelMetadataResponse.TensorMetadata*=4 outputs:ModelMetadataResponse.TensorMetadata*=5
InferParameter bool_param:bool|=1 int64_param:int64|=2 string_param:string|=3 \
double_param:double|=4 uint64_param:uint64|=5
InferTensorContents bool_contents:bool*=1 int_contents:int32*=2 int64_contents:int64*=3 uint_contents:uint32*=4 \
uint64_contents:uint64*=5 fp32_contents:float*=6 fp64_contents:double*=7 bytes_contents:bytes*=8
ModelInferRequest.InferInputTensor name:string=1 datatype:string=2 shape:int64*=3 parameters:InferParameter{}=4 \
contents:InferTensorContents=5
ModelInferRequest.InferRequestedOutputTensor name:string=1 parameters:InferParameter{}=2
ModelInferRequest model_name:string=1 model_version:string=2 id:string=3 parameters:InferParameter{}=4 \
inputs:ModelInferRequest.InferInputTensor*=5 outputs:ModelInferRequest.InferRequestedOutputTensor*=6 \
raw_input_contents:bytes*=7
ModelInferResponse.InferOutputTensor name:string=1 datatype:string=2 shape:int64*=3 parameters:InferParameter{}=4 \
contents:InferTensorContents=5
ModelInferResponse model_name:string=1 model_version:string=2 id:string=3 parameters:InferParameter{}=4 \
outputs:ModelInferResponse.InferOutputTensor*=5 raw_output_contents:bytes*=6
ModelStreamInferResponse error_message:string=1 infer_response:ModelInferResponse=2
ModelConfigRequest name:string=1 version:string=2
ModelInput name:string=1 data_type:DataType=2 dims:int64*=4 allow_ragged_batch:bool=7 optional:bool=8
ModelOutput name:string=1 data_type:DataType=2 dims:int64*=3
ModelInstanceGroup name:string=1 kind:InstanceKind=4 count:int32=2
ModelDynamicBatching preferred_batch_size:int32*=1 max_queue_delay_microseconds:uint64=2
ModelVersionPolicy.All
ModelVersionPolicy all:ModelVersionPolicy.All=2
ModelConfig name:string=1 platform:string=2 backend:string=17 version_policy:ModelVersionPolicy=3 \
max_batch_size:int32=4 input:ModelInput*=5 output:ModelOutput*=6 dynamic_batching:ModelDynamicBatching=11 \
instance_group:ModelInstanceGroup*=7
ModelConfigResponse config:ModelConfig=1
ModelStatisticsRequest name:string=1 version:string=2
StatisticDuration count:uint64=1 ns:uint64=2
InferStatistics success:StatisticDuration=1 fail:StatisticDuration=2 queue:StatisticDuration=3 \
compute_input:StatisticDuration=4 compute_infer:StatisticDuration=5 compute_output:StatisticDuration=6 \
cache_hit:StatisticDuration=7 cache_miss:StatisticDuration=8
ModelStatistics name:string=1 version:string=2 last_inference:uint64=3 inference_count:uint64=4 \
execution_count:uint64=5 inference_stats:InferStatistics=6
ModelStatisticsResponse model_stats:ModelStatistics*=1
ModelRepositoryParameter bool_param:bool|=1 int64_param:int64|=2 string_param:string|=3 bytes_param:bytes|=4
RepositoryIndexRequest repository_name:string=1 ready:bool=2
RepositoryIndexResponse.ModelIndex name:string=1 version:string=2 state:string=3 reason:string=4
RepositoryIndexResponse models:RepositoryIndexResponse.ModelIndex*=1
RepositoryModelLoadRequest repository_name:string=1 model_name:string=2 parameters:ModelRepositoryParameter{}=3
RepositoryModelLoadResponse
RepositoryModelUnloadRequest repository_name:string=1 model_name:string=2 parameters:ModelRepositoryParameter{}=3
RepositoryModelUnloadResponse
"""
_ENUMS = {
    "DataType": "INVALID BOOL UINT8 UINT16 UINT32 UINT64 INT8 INT16 INT32 INT64 FP16 FP32 FP64 STRING BF16",
    "InstanceKind": "AUTO GPU CPU MODEL",
}
_PREFIX = {"DataType": "TYPE_", "InstanceKind": "KIND_"}
METHODS = {
    name: (f"{name}Request", f"{name}Response")
    for name in (
        "ServerLive",
        "ServerReady",
        "ModelReady",
        "ServerMetadata",
        "ModelMetadata",
        "ModelInfer",
        "ModelConfig",
        "ModelStatistics",
        "RepositoryIndex",
        "RepositoryModelLoad",
        "RepositoryModelUnload",
    )
}
"""Method -> the messages that it takes and gives. ModelStreamInfer, a stream of both, is beside them."""


def _file() -> descriptor_pb2.FileDescriptorProto:
    file = descriptor_pb2.FileDescriptorProto(name="multigate/inference.proto", package=PACKAGE, syntax="proto3")
    for enum, values in _ENUMS.items():
        made = file.enum_type.add(name=enum)
        for number, value in enumerate(values.split()):
            made.value.add(name=_PREFIX[enum] + value, number=number)
    lines = [line.split() for line in _MESSAGES.strip().splitlines()]
    outer = {name: file.message_type.add(name=name) for name, *_ in lines if "." not in name}
    for name, *fields in lines:
        parent, _, inner = name.partition(".")
        message = outer[parent].nested_type.add(name=inner) if inner else outer[name]
        for text in fields:
            _add_field(message, name, text)
    return file


def _add_field(message: descriptor_pb2.DescriptorProto, full_name: str, text: str) -> None:
    """Adds NAME:TYPE=NUMBER."""
    name, _, rest = text.partition(":")
    kind, _, number = rest.partition("=")
    field = message.field.add(name=name, number=int(number), label="LABEL_OPTIONAL")
    if kind.endswith("*"):
        field.label = field.LABEL_REPEATED
    if kind.endswith("|"):
        if not message.oneof_decl:
            message.oneof_decl.add(name="parameter_choice")
        field.oneof_index = 0
    if kind.endswith("{}"):
        entry_name = name.title().replace("_", "") + "Entry"
        entry = message.nested_type.add(name=entry_name)
        entry.options.map_entry = True
        _add_field(entry, f"{full_name}.{entry_name}", "key:string=1")
        _add_field(entry, f"{full_name}.{entry_name}", f"value:{kind[:-2]}=2")
        field.label, kind = field.LABEL_REPEATED, f"{full_name}.{entry_name}"
    _set_type(field, kind.rstrip("*|{}"))


def _set_type(field: descriptor_pb2.FieldDescriptorProto, kind: str) -> None:
    single = f"TYPE_{kind.upper()}"
    if single in descriptor_pb2.FieldDescriptorProto.Type.keys():  # noqa: SIM118 - a wrapper, which is no container
        field.type = descriptor_pb2.FieldDescriptorProto.Type.Value(single)
    else:
        field.type = field.TYPE_ENUM if kind in _ENUMS else field.TYPE_MESSAGE
        field.type_name = f".{PACKAGE}.{kind}"


def _classes() -> dict[str, Any]:
    pool = descriptor_pool.DescriptorPool()
    file = pool.AddSerializedFile(_file().SerializeToString())
    described = pool.FindFileByName("multigate/inference.proto") if file is None else file
    return {name: message_factory.GetMessageClass(message) for name, message in described.message_types_by_name.items()}


MESSAGES: dict[str, Any] = _classes()
"""Name -> message class."""
