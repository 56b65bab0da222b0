"""The compiler's flags are the same with every supported torch."""

from torch._inductor import config, cpp_builder

from trainer.export.older_torch import compiling


def flags(options: dict[str, object]) -> list[str]:
    with compiling(options) as known, config.patch(known):
        return cpp_builder.CppOptions(cpp_builder.get_cpp_compiler()).get_cflags()


def test_the_processor_is_as_asked_for():
    architectures = [[flag for flag in flags(options) if "march" in flag] for options in ({"cpp.march": "v3"}, {})]
    assert architectures == [["march=v3"], ["march=native"]]
