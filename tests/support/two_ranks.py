"""Ranks that train together, as forked processes of the test: they need no second import of torch."""

import multiprocessing
import os
import socket
import traceback
from collections.abc import Callable
from typing import Any

_FORK = multiprocessing.get_context("fork")


def environment(rank: int, n_ranks: int, port: int) -> dict[str, str]:
    """What torchrun sets."""
    return {
        "TORCHELASTIC_RUN_ID": "test", "RANK": str(rank), "WORLD_SIZE": str(n_ranks), "LOCAL_RANK": str(rank),
        "LOCAL_WORLD_SIZE": str(n_ranks), "GROUP_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
    }  # fmt: skip


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def _run(function: Callable[..., Any], arguments: tuple, variables: dict[str, str], answers: Any) -> None:
    os.environ.update(variables)
    try:
        answers.send(function(*arguments))
    except BaseException:
        traceback.print_exc()
        raise


def run_ranks(
    function: Callable[..., Any], *arguments: Any, n_ranks: int = 2, timeout_s: float = 300
) -> tuple[list, list]:
    """Answers (None where there is none) and exit codes of `function(*arguments)` on each rank."""
    port = _free_port()
    pipes = [_FORK.Pipe(duplex=False) for _ in range(n_ranks)]
    processes = [
        _FORK.Process(target=_run, args=(function, arguments, environment(rank, n_ranks, port), pipes[rank][1]))
        for rank in range(n_ranks)
    ]
    for process in processes:
        process.start()
    answers = []
    for process, (receiver, sender) in zip(processes, pipes, strict=True):
        sender.close()
        try:
            answers.append(receiver.recv() if receiver.poll(timeout_s) else None)
        except EOFError:
            answers.append(None)
        process.join(timeout_s)
        if process.is_alive():
            process.kill()
            process.join()
    return answers, [process.exitcode for process in processes]
