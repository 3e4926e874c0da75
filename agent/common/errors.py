"""The one exception a person sees: a clear sentence that says what is wrong and what to do."""


class UserError(Exception):
    """Bad input or a bad surrounding (config, file, disk, device); shown without a traceback."""
