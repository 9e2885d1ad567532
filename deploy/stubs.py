"""The Python of KEDA's interface, made from our definition of it by the compiler of grpcio-tools (a test requirement).

python -m deploy.stubs           writes external_scaler_pb2.py and .pyi beside external_scaler.proto
python -m deploy.stubs --check   exit 1 where they differ
"""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from deploy.generated_files import write_or_check

DEFINITION = Path(__file__).parents[1] / "agent/connectors/autoscaler/keda/external_scaler.proto"


def files() -> dict[Path, str]:
    """The text of each file. Raises RuntimeError where the definition cannot be compiled."""
    from grpc_tools import protoc

    with TemporaryDirectory(prefix="wattscale-stubs-") as made:
        words = ("protoc", f"-I{DEFINITION.parent}", f"--python_out={made}", f"--pyi_out={made}", DEFINITION.name)
        if protoc.main(words):
            raise RuntimeError(f"{DEFINITION} cannot be compiled")
        return {DEFINITION.parent / one.name: one.read_text() for one in sorted(Path(made).iterdir())}


if __name__ == "__main__":
    sys.exit(write_or_check(files()))
