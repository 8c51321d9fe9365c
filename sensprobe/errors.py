"""Every error a user can cause, as one tree.

    SensprobeError            exit code 1: the work failed
    ├── UsageError            exit code 2: what was asked cannot be
    │   ├── SchemeError       a scheme that does not parse, or makes no sense where it is put
    │   ├── PlanError         a plan that names what the model lacks
    │   └── BudgetError       a budget no plan can meet, or that needs no plan
    ├── CheckpointError       weights that are missing, damaged, unsafe, or do not fit
    ├── DataError             data that is missing, damaged or out of range
    ├── RunError              a run folder that is damaged, locked, or of another model or data
    ├── CodeError             Python code that a file names and this user did not allow
    ├── CapacityError         more memory than there is
    ├── WorkerError           a process that evaluates ended without an answer
    ├── DivergedError         a training whose loss is no longer finite
    └── UnsupportedError      no implementation for this operation, device and format

A message says what was asked, what exists, and what to do. The command line prints it alone and
exits with `exit_code`; a traceback appears only under `--debug`.
"""


class SensprobeError(Exception):
    """Base of every error this package raises on purpose."""

    exit_code = 1


class UsageError(SensprobeError):
    """The request cannot be met as it was made."""

    exit_code = 2


class SchemeError(UsageError):
    """A scheme that does not parse, or makes no sense for the site it is put on."""


class PlanError(UsageError):
    """A plan that is malformed, or names sites the model lacks."""


class BudgetError(UsageError):
    """A memory budget that no plan meets, or that full precision already meets."""


class CheckpointError(SensprobeError):
    """Weights that cannot be read, or do not fit the model they are meant for."""


class DataError(SensprobeError):
    """Data that is missing, damaged or out of range."""


class RunError(SensprobeError):
    """A run folder that is damaged, in use, or belongs to other inputs."""


class CodeError(SensprobeError):
    """Code that only a file names, and that this user did not allow on this machine."""


class CapacityError(SensprobeError):
    """Something needs more memory than there is."""


class WorkerError(SensprobeError):
    """A process that evaluates for this one ended without an answer."""


class DivergedError(SensprobeError):
    """A training whose loss is no longer finite."""


class UnsupportedError(SensprobeError):
    """No implementation of an operation for this device and these formats."""
