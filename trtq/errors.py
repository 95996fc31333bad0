"""Everything trtq raises on purpose, each with the exit code that the command line returns for it."""


class TrtqError(Exception):
    """Base of all deliberate errors: the message names the thing, what is wrong and what to do.

    As text it is one line without control characters, whatever names a file brings into it.
    """

    exit_code = 2

    def __str__(self) -> str:
        """Return the message, control characters as Python writes them."""
        return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in super().__str__())


class ConfigError(TrtqError):
    """A recipe or an option that cannot be used."""


class ModelError(TrtqError):
    """A network, checkpoint, ONNX file or engine that cannot be used."""


class DataError(TrtqError):
    """Images or labels that cannot be used."""


class MissingBackendError(TrtqError):
    """Something that has to be installed first; the message says what."""

    exit_code = 3


class BuildError(TrtqError):
    """The engine builder refused or died; the message holds its last words."""

    exit_code = 4


class OutputError(TrtqError):
    """A result that cannot be written: full disk, read-only folder, a file in the way."""

    exit_code = 5
