"""The one exception a person sees: a clear sentence that says what is wrong and what to do."""


class UserError(Exception):
    """Bad input or a bad surrounding (config, file, disk, device); shown without a traceback.

    Args:
        sentence: what is wrong and what to do.
        detail: lines to show below the sentence, such as those of an environment's own code that failed.
    """

    def __init__(self, sentence: str, detail: str = "") -> None:
        super().__init__(sentence)
        self.detail = detail
