"""What the sweep costs beside the trainings, and how many epochs its search saves.

    .venv/bin/python benchmarks/sweep.py [--json]          half an hour; trains nothing, needs no GPU

search     epochs until the best of a grid is found, as benchmarks/search.py counts them
overhead   trials that only sleep, in a study and under a bare Tuner by turns: seconds a trial beyond its sleeping
report     what the report of an epoch costs Tune's event loop and the trial, with and without a real MLflow server, and
           what it costs with Ray's own MLflow callback
scaling    trials that sleep on 2, 4 and 8 hosts of loopback, against no time lost at all
joining    seconds from a node's joining a running study until it trains, its prepared data being there
load       the driver's share of a core at 100 reports a second, which is what 100 trials at one a second send
"""

import importlib
import sys
import warnings
from pathlib import Path

if __name__ == "__main__":
    warnings.filterwarnings("ignore", category=FutureWarning)  # of torch's and fastai's own parts
    importlib.import_module("sweep")  # the package, before Ray: what it tells Ray is read once
    from overhead import main

    main(__doc__)
else:
    # Scripts beside this file, and Ray's workers of them, find it before the package that has the same name.
    here = str(Path(__file__).parent)
    sys.path.remove(here)
    del sys.modules["sweep"]
    importlib.import_module("sweep")
    sys.path.append(here)
