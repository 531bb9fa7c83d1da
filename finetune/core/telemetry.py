"""No library reports to its maker, or keeps a record of its use, in a process of ours.

ONNX Runtime (1.29 and later) reads its variable as it is loaded: later calls come too late, so this
module stands before every other import, and first in an artifact's ``predict.py``. It imports the
standard library only.
"""

from __future__ import annotations

import os
import sys

SILENT = {
    "ORT_DISABLE_TELEMETRY": "1",  # or a device id and a database below the home folder
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_UPDATE_DOWNLOAD_COUNTS": "0",  # of datasets
    "DO_NOT_TRACK": "1",
}
REPORTERS = ("openvino_telemetry",)  # of OpenVINO and NNCF, which do without where it is absent


def silence_telemetry() -> None:
    """Set the variables, for child processes too, and let no reporter be imported."""
    os.environ.update(SILENT)
    for name in REPORTERS:
        if name not in sys.modules:
            sys.modules[name] = None


silence_telemetry()
