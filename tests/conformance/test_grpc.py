"""The protocol over gRPC, with the messages that tritonclient brings."""

import grpc
import numpy as np
import pytest
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc.service_pb2_grpc import GRPCInferenceServiceStub

from tests.conformance.speaker import DTYPES, Speaker, bytes_of

MISTAKES = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.OUT_OF_RANGE,
    grpc.StatusCode.UNIMPLEMENTED,
}
CONTENTS = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}


@pytest.fixture(scope="module")
def stub(addresses):
    if addresses[1] is None:
        pytest.skip("no --grpc-url")
    with grpc.insecure_channel(addresses[1]) as channel:
        yield GRPCInferenceServiceStub(channel)


def request_of(speaker: Speaker, rows=2, raw=True, **keys):
    """A request for all inputs, their values raw or typed."""
    request = pb.ModelInferRequest(model_name=speaker.model, **keys)
    for one in speaker.inputs(rows):
        tensor = request.inputs.add(name=one["name"], datatype=one["datatype"], shape=one["shape"])
        if raw:
            request.raw_input_contents.append(bytes_of(one))
        elif one["datatype"] == "BYTES":
            tensor.contents.bytes_contents.extend(text.encode() for text in one["data"])
        elif one["datatype"] == "FP16":
            pytest.skip("FP16 has no typed contents")
        else:
            getattr(tensor.contents, CONTENTS[one["datatype"]]).extend(one["data"])
    return request


def outputs_of(response):
    """name -> values, raw or typed."""
    found = {}
    for place, one in enumerate(response.outputs):
        if response.raw_output_contents:
            values = np.frombuffer(response.raw_output_contents[place], DTYPES[one.datatype])
        else:
            values = np.array(getattr(one.contents, CONTENTS[one.datatype]), DTYPES[one.datatype])
        found[one.name] = values.reshape(list(one.shape))
    return found


def code_of(call, request):
    with pytest.raises(grpc.RpcError) as caught:
        call(request)
    assert caught.value.details()
    return caught.value.code()


def test_live(stub):
    assert stub.ServerLive(pb.ServerLiveRequest()).live


def test_ready(stub):
    assert stub.ServerReady(pb.ServerReadyRequest()).ready


def test_model_ready(stub, speaker):
    assert stub.ModelReady(pb.ModelReadyRequest(name=speaker.model)).ready


def test_unknown_models_are_not_ready(stub):
    try:
        is_ready, code = stub.ModelReady(pb.ModelReadyRequest(name="no_such_model_anywhere")).ready, None
    except grpc.RpcError as error:
        is_ready, code = False, error.code()
    assert not is_ready
    assert code is None or code in MISTAKES


@pytest.mark.parametrize("key", ["name", "version"])
def test_server_metadata(stub, key):
    assert getattr(stub.ServerMetadata(pb.ServerMetadataRequest()), key)


def test_server_metadata_are_those_of_http(stub, speaker):
    assert list(stub.ServerMetadata(pb.ServerMetadataRequest()).extensions) == speaker.extensions


@pytest.mark.parametrize("side", ["inputs", "outputs"])
def test_model_metadata_are_those_of_http(stub, speaker, side):
    found = getattr(stub.ModelMetadata(pb.ModelMetadataRequest(name=speaker.model)), side)
    expected = [(one["name"], one["datatype"], one["shape"]) for one in speaker.metadata[side]]
    assert [(one.name, one.datatype, list(one.shape)) for one in found] == expected


def test_model_metadata_name_and_versions(stub, speaker):
    found = stub.ModelMetadata(pb.ModelMetadataRequest(name=speaker.model))
    assert (found.name, list(found.versions)) == (speaker.model, speaker.metadata.get("versions", []))


@pytest.mark.parametrize("version", ["", "987654321"])
def test_metadata_of_what_is_not_there(stub, speaker, version):
    name = speaker.model if version else "no_such_model_anywhere"
    assert code_of(stub.ModelMetadata, pb.ModelMetadataRequest(name=name, version=version)) in MISTAKES


@pytest.mark.parametrize("raw", [True, False])
@pytest.mark.parametrize("rows", [1, 2, 50])
def test_scores_are_those_of_http(stub, speaker, raw, rows):
    expected = speaker.scores({"inputs": speaker.inputs(rows)})
    found = outputs_of(stub.ModelInfer(request_of(speaker, rows, raw)))
    assert found.keys() == expected.keys()
    for name, values in found.items():
        np.testing.assert_allclose(values, expected[name], rtol=1e-6)


def test_the_answer_names_the_model(stub, speaker):
    assert stub.ModelInfer(request_of(speaker)).model_name == speaker.model


@pytest.mark.parametrize("name", ["42", "", "é"])
def test_the_id_comes_back(stub, speaker, name):
    assert stub.ModelInfer(request_of(speaker, id=name)).id == name


def test_outputs_have_the_datatypes_of_the_metadata(stub, speaker):
    wanted = {one["name"]: one["datatype"] for one in speaker.metadata["outputs"]}
    assert {one.name: one.datatype for one in stub.ModelInfer(request_of(speaker)).outputs} == wanted


def test_a_chosen_output_comes_alone(stub, speaker):
    name = speaker.metadata["outputs"][-1]["name"]
    request = request_of(speaker)
    request.outputs.add(name=name)
    assert [one.name for one in stub.ModelInfer(request).outputs] == [name]


def test_a_version(stub, speaker):
    if not speaker.metadata.get("versions"):
        pytest.skip("the model has no versions")
    version = speaker.metadata["versions"][-1]
    assert stub.ModelInfer(request_of(speaker, model_version=version)).model_version in (version, "")


def test_parameters_that_mean_nothing_here(stub, speaker):
    request = request_of(speaker)
    request.parameters["unheard_of"].int64_param = 5
    assert stub.ModelInfer(request).outputs


def no_inputs(request):
    del request.inputs[:], request.raw_input_contents[:]


def unknown_input(request):
    request.inputs[0].name = "no such input"


def one_missing(request):
    del request.inputs[0], request.raw_input_contents[0]


def twice(request):
    request.inputs.add().CopyFrom(request.inputs[0])
    request.raw_input_contents.append(request.raw_input_contents[0])


def unknown_datatype(request):
    request.inputs[0].datatype = "INT63"


def negative_size(request):
    request.inputs[0].shape[0] = -2


def more_rows(request):
    request.inputs[0].shape[0] += 1


def bytes_cut_off(request):
    request.raw_input_contents[0] = request.raw_input_contents[0][:-1]


def too_few_raw(request):
    del request.raw_input_contents[-1]


def too_many_raw(request):
    request.raw_input_contents.append(b"1234")


def raw_and_typed(request):
    request.inputs[0].contents.int64_contents.append(1)


def unknown_output(request):
    request.outputs.add(name="no such output")


def other_model(request):
    request.model_name = "no_such_model_anywhere"


def no_model(request):
    request.model_name = ""


def other_version(request):
    request.model_version = "987654321"


def huge_shape(request):
    request.inputs[0].shape[:] = [2**40, 2**40]


REFUSED = {
    function.__name__: function
    for function in (
        no_inputs,
        unknown_input,
        one_missing,
        twice,
        unknown_datatype,
        negative_size,
        more_rows,
        bytes_cut_off,
        too_few_raw,
        too_many_raw,
        raw_and_typed,
        unknown_output,
        other_model,
        no_model,
        other_version,
        huge_shape,
    )
}


@pytest.mark.parametrize("what", REFUSED)
def test_refused(stub, speaker, what):
    request = request_of(speaker)
    REFUSED[what](request)
    assert code_of(stub.ModelInfer, request) in MISTAKES


def test_typed_contents_of_another_type(stub, speaker):
    request = request_of(speaker, raw=False)
    tensor = request.inputs[0]
    tensor.ClearField("contents")
    (tensor.contents.fp64_contents if tensor.datatype != "FP64" else tensor.contents.int64_contents).extend([1] * 2)
    assert code_of(stub.ModelInfer, request) in MISTAKES


def test_it_answers_as_before(stub, speaker):
    before = outputs_of(stub.ModelInfer(request_of(speaker)))
    for change in REFUSED.values():
        request = request_of(speaker)
        change(request)
        code_of(stub.ModelInfer, request)
    for name, values in outputs_of(stub.ModelInfer(request_of(speaker))).items():
        np.testing.assert_array_equal(values, before[name])


def test_unknown_methods(addresses, stub):
    with grpc.insecure_channel(addresses[1]) as channel:
        call = channel.unary_unary("/inference.GRPCInferenceService/Nothing")
        assert code_of(call, b"") == grpc.StatusCode.UNIMPLEMENTED


def test_configuration(stub, speaker, needs):
    needs("model_configuration")
    found = stub.ModelConfig(pb.ModelConfigRequest(name=speaker.model)).config
    assert found.name == speaker.model
    assert {one["name"] for one in speaker.metadata["inputs"]} <= {one.name for one in found.input}


def test_statistics(stub, speaker, needs):
    needs("statistics")

    def count():
        return stub.ModelStatistics(pb.ModelStatisticsRequest(name=speaker.model)).model_stats[0].inference_count

    before = count()
    stub.ModelInfer(request_of(speaker, 3))
    assert count() == before + 3


def test_the_repository_lists_the_model(stub, speaker, needs):
    needs("model_repository")
    found = stub.RepositoryIndex(pb.RepositoryIndexRequest()).models
    assert speaker.model in {one.name for one in found}


def test_a_stream_answers_each_request(stub, speaker):
    requests = [request_of(speaker, rows, id=str(rows)) for rows in (1, 2, 3)]
    try:
        answers = [response.infer_response for response in stub.ModelStreamInfer(iter(requests))]
    except grpc.RpcError as error:
        if error.code() == grpc.StatusCode.UNIMPLEMENTED:
            pytest.skip("no streams")
        raise
    assert sorted((one.id, one.outputs[0].shape[0]) for one in answers) == [("1", 1), ("2", 2), ("3", 3)]


def test_a_mistake_does_not_end_a_stream(stub, speaker):
    wrong = request_of(speaker)
    wrong.inputs[0].name = "no such input"
    try:
        found = [bool(r.error_message) for r in stub.ModelStreamInfer(iter([wrong, request_of(speaker)]))]
    except grpc.RpcError as error:
        if error.code() == grpc.StatusCode.UNIMPLEMENTED:
            pytest.skip("no streams")
        raise
    assert sorted(found) == [False, True]
