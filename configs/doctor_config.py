"""The section `doctor`: what the check of a cluster asks for. No run depends on it."""

from typing import Annotated

from pydantic import Field

from configs.section import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, Seconds, Section


class DoctorConfig(Section):
    """What `doctor` measures, how long it waits, and from where on it warns."""

    answer_s: Annotated[
        Seconds,
        Field(description="For which a node may take to answer at all; raise it where Python starts slowly (NFS)."),
    ] = 20.0
    connect_s: Annotated[
        Seconds, Field(description="For which one node tries to reach another; all pairs are tried at once.")
    ] = 5.0
    folder_s: Annotated[
        Seconds,
        Field(description="In which a file that one node wrote must be seen by all others; raise it for slow mounts."),
    ] = 20.0
    bandwidth_s: Annotated[
        Seconds, Field(description="For which the ranks may take to import torch, find each other and measure.")
    ] = 90.0
    bandwidth_mib: Annotated[
        NonNegativeInt,
        Field(le=4096, description="Of the buffer that each rank sends; 0 measures nothing, and starts no ranks."),
    ] = 64
    min_all_reduce_gb_s: Annotated[
        NonNegativeFloat, Field(description="GB/s of a buffer below which it warns; 0: it only says what it measured.")
    ] = 0.0
    min_all_to_all_gb_s: Annotated[
        NonNegativeFloat, Field(description="The same for all_to_all, with which tables exchange IDs and rows.")
    ] = 0.0
    max_clock_difference_s: Annotated[
        PositiveFloat, Field(description="Between two nodes; more makes times in logs and of files misleading.")
    ] = 1.0
    min_free_gib: Annotated[
        NonNegativeFloat, Field(description="Free space that the run directory and Ray's folder should have; 0: any.")
    ] = 10.0
    min_shared_memory_gib: Annotated[
        NonNegativeFloat, Field(description="Size of /dev/shm, where Ray and NCCL keep what processes share; 0: any.")
    ] = 1.0
    min_open_files: Annotated[
        PositiveInt, Field(description="Limit of a worker's open files; sockets to all other ranks are among them.")
    ] = 4096
    max_detection_s: Annotated[
        PositiveFloat,
        Field(description="Seconds after which Ray's head should have noticed a host that does not answer any more."),
    ] = 15.0
