"""What the user told the client: which server, as whom, and the command line that is passed on.

Sources, the first that says something wins: command line, ``XE_EXTRA_ARGS`` (comma-separated, ``\\,`` is a comma),
``~/.xe`` (``key=value`` lines), defaults.
"""

from __future__ import annotations

LOCAL_SERVERS = ("127.0.0.1", "localhost", "::1")
_SWITCHES = {"-s": "server", "-h": "server", "-p": "port", "-u": "username", "-pw": "password", "-pwf": "passwordfile"}
_FLAGS = {
    "--nossl": ("nossl", "true"),
    "--debug": ("debug", "true"),
    "--debug-on-fail": ("debugonfail", "true"),
    "-version": ("version", "true"),
    "--version": ("version", "true"),
    "--help": ("help", "true"),
    "-help": ("help", "true"),
}
_KEYS = frozenset(["server", "port", "username", "password", "passwordfile", "nossl", "debug", "debugonfail"])
_ONLY_IN_FILE = frozenset(["ca"])
_TRUE = ("true", "t", "yes", "y", "1")


class UsageError(Exception):
    """The command line makes no sense to the client."""


class Options:
    """``words``: the command and its arguments for the server. ``repr`` shows no password."""

    def __init__(self, settings: dict[str, str], words: list[str]) -> None:
        self.words = words
        self.server = settings.get("server", "127.0.0.1")
        self.port = _port(settings.get("port"))
        self.user = settings.get("username", "")
        self.password = settings.get("password", "")
        self.password_file = settings.get("passwordfile", "")
        self.tls = None if "nossl" not in settings else settings["nossl"].lower() not in _TRUE
        self.debug = settings.get("debug", "").lower() in _TRUE
        self.debug_on_failure = settings.get("debugonfail", "").lower() in _TRUE
        self.trace_parent = settings.get("traceparent", "")
        self.wants_help = "help" in settings
        self.wants_version = "version" in settings
        self.ca_file = settings.get("ca", "")

    @property
    def local(self) -> bool:
        return self.server in LOCAL_SERVERS

    def __repr__(self) -> str:
        return f"Options(server={self.server!r}, port={self.port}, user={self.user!r})"


def _port(text: str | None) -> int | None:
    if text is None:
        return None
    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise UsageError(f"'{text}' is not a port")
    return int(text)


def read_options(arguments: list[str], environment: dict[str, str], settings_file: str) -> Options:
    """``settings_file``: the text of ``~/.xe``, empty if there is none. UsageError."""
    settings, words = _read_words(arguments)
    more, more_words = _read_words(split_extra(environment.get("XE_EXTRA_ARGS", "")))
    settings = {**read_settings(settings_file), **more, **settings}
    if ca := environment.get("GESPANN_CA"):
        settings["ca"] = ca
    return Options(settings, words + more_words)


def _read_words(words: list[str]) -> tuple[dict[str, str], list[str]]:
    """The client's own settings, and the words that are the server's business."""
    settings: dict[str, str] = {}
    rest: list[str] = []
    iterator = iter(words)
    for word in iterator:
        key, equals, value = word.partition("=")
        if word in _FLAGS and (word not in ("--help", "-help") or not rest):
            settings.setdefault(*_FLAGS[word])
        elif word in _SWITCHES or word == "--traceparent":
            taken = next(iterator, None)
            if taken is None:
                raise UsageError(f"{word} needs a value")
            settings.setdefault(_SWITCHES.get(word, "traceparent"), taken)
        elif equals and key in _KEYS:
            settings.setdefault(key, value)
        else:
            rest.append(word)
    return settings, rest


def split_extra(text: str) -> list[str]:
    """``a=1,b=2\\,3`` is two words, ``a=1`` and ``b=2,3``."""
    words, word, characters = [], "", iter(text)
    for character in characters:
        if character == "\\":
            word += next(characters, "\\")
        elif character == ",":
            words.append(word)
            word = ""
        else:
            word += character
    words.append(word)
    return [word for word in words if word]


def read_settings(text: str) -> dict[str, str]:
    """``key=value`` lines; blank lines, comments and keys that mean nothing to us are passed over."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        key, equals, value = line.partition("=")
        if equals and key.strip() in _KEYS | _ONLY_IN_FILE:
            found[key.strip()] = value.strip()
    return found


def is_secret(word: str) -> bool:
    """Whether a word of the command line holds something that others on this machine must not see."""
    key, equals, _ = word.partition("=")
    lowered = key.lower()
    return bool(equals) and (
        "password" in lowered or "secret" in lowered or lowered in ("value", "new", "old", "token", "config:pass")
    )


def without_secrets(words: list[str]) -> list[str]:
    """The same command line with every secret blotted out, for the process list."""
    shown: list[str] = []
    for word in words:
        if shown and shown[-1] == "-pw":
            shown.append("*")
        else:
            shown.append(word.partition("=")[0] + "=*" if is_secret(word) else word)
    return shown
