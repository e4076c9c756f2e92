"""The driver: spreads trials over machines with Ray Tune and Optuna, and records them in MLflow."""

import os

# Ray's processes listen on all interfaces, whatever they are told, so every cluster asks for a token. Ray reads
# this once, when it is imported, which is why it stands here.
os.environ.setdefault("RAY_AUTH_MODE", "token")
# The exporter of a node's metrics asks for none, and nothing here reads them.
os.environ.setdefault("RAY_enable_metrics_collection", "0")
# Tune's newer output prints banners at every verbosity; the study has a board of its own.
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
# So does MLflow, for each copy of a file.
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
# What is trained here is nobody's business.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
# Ctrl-C is handled in sweep/stopping.py, and the study writes its own logs.
os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")
os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
# Else a trial is added only once the one before has started, which takes seconds; the book counts them.
os.environ.setdefault("TUNE_MAX_PENDING_TRIALS_PG", "64")
