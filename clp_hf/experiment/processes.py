"""How many processes train: what accelerate is asked for, what it starts, and that they train together."""

import logging
import os
from argparse import Namespace

logger = logging.getLogger(__name__)

# Of mpirun, each of whose processes is told how many there are.
MPI_SIZES = ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")


def gpus() -> int:
    """The accelerators of this machine that processes can share out among them, which Apple's cannot be."""
    import torch

    device = torch.accelerator.current_accelerator(check_available=True)
    return 0 if device is None or device.type == "mps" else torch.accelerator.device_count()


def one_process_is_all() -> bool:
    """Whether accelerate, told nothing, would start one process with nothing said to it: no configuration, no GPUs."""
    from accelerate.commands.config.config_args import default_config_file

    return not os.path.isfile(default_config_file) and gpus() < 2


def start_all(args: Namespace) -> dict[str, str]:
    """Have accelerate start as many processes as it is asked for, on GPUs or on the cores of a CPU.

    By itself it starts several only where it knows of several GPUs, and else one, without a word. DeepSpeed, FSDP, TPUs
    and mpirun, which have launchers of their own, are left to it.

    Args:
        args: of `accelerate launch`; changed in place.

    Returns:
        What the processes need in their environment.

    Raises:
        ValueError: more processes than GPUs are asked for.
    """
    from accelerate.commands.config.config_args import default_config_file, load_config_from_file

    file = args.config_file or (default_config_file if os.path.isfile(default_config_file) and not args.cpu else None)
    config = vars(load_config_from_file(file)) if file else {}
    processes = args.num_processes or config.get("num_processes") or 1
    if _has_a_launcher_of_its_own(args, config):
        return {}
    if not file:
        _say_defaults(args)
    machines = args.num_machines or config.get("num_machines") or 1
    found = gpus()
    on_cpu = args.cpu or config.get("use_cpu") or not found
    # accelerate would give a process on a CPU one core of it
    if on_cpu and args.num_cpu_threads_per_process is None and "OMP_NUM_THREADS" not in os.environ:
        args.num_cpu_threads_per_process = max(1, (os.cpu_count() or 1) * machines // processes)
    if processes < 2:
        return {}
    if not on_cpu and processes // machines > found:
        raise ValueError(
            f"{processes // machines} processes were asked for, each of which needs a GPU, and this machine has "
            f"{found}. Lower --num_processes, or train on the cores of the CPU: --cpu."
        )
    args.multi_gpu = True  # torchrun, whatever the processes run on
    if not on_cpu:
        return {}
    # Said here, since without --cpu, which contradicts --multi_gpu, accelerate would look into its configuration.
    args.cpu, args.use_cpu, args.gpu_ids, args.num_machines = False, True, "all", machines
    args.mixed_precision = args.mixed_precision or config.get("mixed_precision") or "no"
    return {"ACCELERATE_USE_CPU": "true"}


def _say_defaults(args: Namespace) -> None:
    """Give accelerate what it would take by itself, which it would list as a warning with every launch."""
    args.num_processes = gpus() if args.num_processes is None else args.num_processes
    args.num_machines = args.num_machines or 1
    args.mixed_precision = args.mixed_precision or "no"
    args.dynamo_backend = args.dynamo_backend or "no"


def train_together() -> None:
    """Have this process train with the others that were started; say so where several were asked for and one started.

    To be called before the training arguments are made, which join the processes.
    """
    from accelerate.utils import get_int_from_env

    if get_int_from_env(["WORLD_SIZE", *MPI_SIZES], 1) > 1:
        if not gpus():  # without this, each would train by itself, and write into the same folder
            os.environ["ACCELERATE_USE_CPU"] = "true"
    elif "ACCELERATE_DYNAMO_MODE" in os.environ and {"MASTER_ADDR", "MASTER_PORT"} <= set(os.environ):
        # `accelerate launch` gives these to a process that is to be one of several, and has started one.
        logger.warning(
            "accelerate seems to have been asked for several processes, and has started this one alone, which trains "
            "by itself. On the cores of a CPU too they are started by: clp-hf train --num_processes 2 …, or "
            "accelerate launch --multi_gpu --num_processes 2 …, without --cpu."
        )


def _has_a_launcher_of_its_own(args: Namespace, config: dict) -> bool:
    flags = (args.tpu, args.use_deepspeed, args.use_fsdp, args.use_megatron_lm, args.mpirun_hostfile)
    mpi = config.get("mpirun_config") or any(name in os.environ for name in MPI_SIZES)
    kind = config.get("distributed_type", "NO")
    elsewhere = config.get("compute_environment", "LOCAL_MACHINE") != "LOCAL_MACHINE"
    return any(flags) or bool(mpi) or elsewhere or not (kind == "NO" or kind.startswith("MULTI_"))
