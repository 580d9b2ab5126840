"""Where packages come from: pip's and uv's own settings, read once, handed to uv and to jobs, never logged.

Source: pip.pypa.io/en/stable/topics/configuration, docs.astral.sh/uv/reference/environment.
"""

from __future__ import annotations

import configparser
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

_SECRET = re.compile(r"(?P<scheme>[a-zA-Z][a-zA-Z0-9+.-]*://)(?P<secret>[^/@\s'\"]+)@")
_TO_UV = {
    "index-url": "UV_DEFAULT_INDEX",
    "extra-index-url": "UV_INDEX",
    "find-links": "UV_FIND_LINKS",
    "trusted-host": "UV_INSECURE_HOST",
    "timeout": "UV_HTTP_TIMEOUT",
    "cert": "SSL_CERT_FILE",
    "client-cert": "SSL_CLIENT_CERT",
    "proxy": "ALL_PROXY",
}
_PORTS = {"http": 80, "https": 443}
_NAMED = re.compile(r"[A-Za-z0-9._-]+=")
"""How UV_INDEX gives an index a name."""
_BESIDE = ("files", "packages")
"""Where the pages of a folder named `simple` link to."""
_KEYS = (*_TO_UV, "no-index")
_OWN = ("UV_CACHE_DIR", "UV_CONFIG_FILE", "UV_INSTALL_DIR", "UV_TOOL_DIR", "UV_TOOL_BIN_DIR")
"""uv's own about this machine's folders; nothing of it is of use to a job."""
_KEPT = (
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "NO_PROXY",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "SSL_CLIENT_CERT",
    "HOME",
    "PATH",
    "XDG_CACHE_HOME",
    "XDG_CONFIG_HOME",
    "XDG_DATA_HOME",
    "TMPDIR",
    "LANG",
    "LC_ALL",
    "NETRC",
)


@dataclass(slots=True)
class Indexes:
    """The settings under pip's names, and uv's own environment variables."""

    pip: dict[str, str] = field(default_factory=dict)
    uv: dict[str, str] = field(default_factory=dict)

    def for_uv(self, environ: Mapping[str, str]) -> dict[str, str]:
        """The environment of a uv process: pip's settings translated, uv's own winning.

        Differs: pip looks at all indexes alike; so does uv here when pip's settings name more than one.
        """
        env = {k: v for k, v in environ.items() if k in _KEPT or k.lower() in ("http_proxy", "https_proxy", "no_proxy")}
        for key, name in _TO_UV.items():
            if value := self.pip.get(key):
                env.setdefault(name, _commas(value) if key == "find-links" else " ".join(value.split()))
        if any(k in self.pip for k in ("extra-index-url", "find-links")):
            env["UV_INDEX_STRATEGY"] = "unsafe-best-match"
        env.update(self.uv)
        return env

    def arguments(self) -> list[str]:
        """The one setting that uv takes on its command line only."""
        return ["--no-index"] if "no-index" in self.pip else []

    def for_jobs(self) -> dict[str, str]:
        """PIP_* and UV_* variables for programs that install packages inside a sandbox. They may hold credentials.

        Certificates and proxies are left out: a job has the sandbox's own.
        """
        skipped = ("cert", "client-cert", "proxy")
        pip = {_variable(k): " ".join(v.split()) for k, v in self.pip.items() if k not in skipped}
        uv = {k: v for k, v in self.for_uv({}).items() if k.startswith("UV_") and k not in _OWN}
        return {**pip, **uv}

    def wheels(self, name: str, local: str, minor: str) -> list[str]:
        """The versions of a package, of builds of this local version, that lie in folders for this Python; the newest first."""
        pattern = re.compile(
            rf"{re.escape(name)}-([0-9][0-9.]*\+{re.escape(local)})-cp{minor.replace('.', '')}-.*\.whl"
        )
        words = f"{self.pip.get('find-links', '')} {self.uv.get('UV_FIND_LINKS', '').replace(',', ' ')}".split()
        found = set()
        for word in words:
            folder = Path(unquote(urlsplit(word).path) if word.startswith("file:") else word)
            names = os.listdir(folder) if folder.is_absolute() and folder.is_dir() else []
            found |= {match[1] for file in names if (match := pattern.fullmatch(file))}
        return sorted(found, key=lambda version: [int(n) for n in version.partition("+")[0].split(".")], reverse=True)

    def places(self) -> set[tuple[str, int]]:
        """Hosts and ports of the registries that the settings name, wherever they are."""
        words = [self.pip.get(key, "") for key in ("index-url", "extra-index-url", "find-links")]
        words += [value for name, value in self.uv.items() if "INDEX" in name or name == "UV_FIND_LINKS"]
        found = set()
        for word in " ".join(words).replace(",", " ").split():
            url = urlsplit(word.partition("=")[2] if _NAMED.match(word) else word)
            if url.scheme in _PORTS and url.hostname:
                found.add((url.hostname, url.port or _PORTS[url.scheme]))
        return found

    def folders(self) -> list[str]:
        """Local folders that the settings name: to be mounted read-only where jobs install packages."""
        found = []
        for key in ("index-url", "extra-index-url", "find-links"):
            for word in self.pip.get(key, "").split():
                path = unquote(urlsplit(word).path) if word.startswith("file:") else word
                if path.startswith("/") and os.path.isdir(path):
                    folder = Path(path)
                    beside = [folder.parent / name for name in _BESIDE] if folder.name == "simple" else []
                    found += [str(folder), *(str(p) for p in beside if p.is_dir())]
        return list(dict.fromkeys(found))


def read_indexes(environ: Mapping[str, str]) -> Indexes:
    """pip's settings as `pip config list` shows them (files, then PIP_*), and UV_* variables as they are."""
    pip: dict[str, str] = {}
    for path in _files(environ):
        pip.update(_read_file(path))
    for key in _KEYS:
        value = environ.get(_variable(key))
        if value:
            pip[key] = value
    if pip.get("no-index", "").lower() in ("0", "false", "no", "off", ""):
        pip.pop("no-index", None)
    uv = {k: v for k, v in environ.items() if k.startswith("UV_") and not k.startswith(("UV_PROJECT", "UV_PYTHON"))}
    return Indexes(pip, uv)


def redact(text: str) -> str:
    """Text without the user names and passwords of URLs."""
    return _SECRET.sub(lambda m: m["scheme"] + "****@", text)


def _files(environ: Mapping[str, str]) -> Iterable[Path]:
    given = environ.get("PIP_CONFIG_FILE")
    if given == os.devnull:
        return
    for folder in environ.get("XDG_CONFIG_DIRS", "/etc/xdg").split(":"):
        yield Path(folder) / "pip" / "pip.conf"
    yield Path("/etc/pip.conf")
    if home := environ.get("HOME"):
        yield Path(home) / ".pip" / "pip.conf"
        yield Path(environ.get("XDG_CONFIG_HOME") or Path(home) / ".config") / "pip" / "pip.conf"
    if given:
        yield Path(given)


def _read_file(path: Path) -> dict[str, str]:
    parser = configparser.RawConfigParser()
    try:
        parser.read(path, encoding="utf-8")
    except (OSError, configparser.Error, UnicodeDecodeError):
        return {}
    found: dict[str, str] = {}
    for section in ("global", "install"):
        if parser.has_section(section):
            found.update({k.replace("_", "-"): v for k, v in parser.items(section) if k.replace("_", "-") in _KEYS})
    return found


def _variable(key: str) -> str:
    return "PIP_" + key.upper().replace("-", "_")


def _commas(value: str) -> str:
    return ",".join(value.split())
