"""nginx as the measure of what serving a file over TLS can cost."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from tests.bench.missing import MissingToolError

_CONFIGURATION = """
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 64; }}
http {{
    access_log off;
    sendfile on;
    tcp_nopush on;
    server {{
        listen 127.0.0.1:{port} ssl;
        ssl_certificate {certificate};
        ssl_certificate_key {key};
        ssl_protocols TLSv1.3;
        root {root};
{more}    }}
}}
"""


def require() -> None:
    """Make nginx and curl available: installed by apt where that is possible. Raises MissingToolError otherwise."""
    missing = [tool for tool in ("nginx", "curl") if _find(tool) is None]
    if missing and os.geteuid() == 0 and shutil.which("apt-get"):
        print(f"installing {' '.join(missing)} with apt-get")
        environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
        install = ["apt-get", "install", "--yes", "--quiet", "--no-install-recommends", *missing]
        for command in (["apt-get", "update", "--quiet"], install):
            subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
        missing = [tool for tool in missing if _find(tool) is None]
    if missing:
        raise MissingToolError(f"needs {' and '.join(missing)}; on Debian: apt-get install {' '.join(missing)}")


_STORING = """        client_body_temp_path {folder}/incoming;
        client_max_body_size 64m;
        dav_methods PUT;
        create_full_put_path on;
"""


def storing(root: Path, *, folder: Path, certificate: Path, key: Path) -> AbstractContextManager[int]:
    """As `serving`, and take files by WebDAV's PUT."""
    return serving(root, folder=folder, certificate=certificate, key=key, more=_STORING.format(folder=folder))


@contextmanager
def serving(root: Path, *, folder: Path, certificate: Path, key: Path, more: str = "") -> Iterator[int]:
    """Serve the files below `root` over TLS 1.3 with one worker; yield the port."""
    folder.mkdir(parents=True, exist_ok=True)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    configuration = folder / "nginx.conf"
    configuration.write_text(
        _CONFIGURATION.format(folder=folder, port=port, certificate=certificate, key=key, root=root, more=more)
    )
    # As root, nginx gives its worker to another user, who cannot read a folder of ours.
    user = ["-g", "user root;"] if os.geteuid() == 0 else []
    command = [_find("nginx") or "nginx", "-e", str(folder / "error.log"), "-c", str(configuration), *user]
    with subprocess.Popen(command) as process:
        try:
            yield port
        finally:
            process.terminate()


def download(url: str, target: Path, *, host: str, certificate_authority: Path) -> float:
    """Fetch with curl; return the seconds that it took. It waits for nginx to listen, and checks no digest."""
    address = url.removeprefix("https://").partition("/")[0]
    command = [
        *["curl", "--silent", "--show-error", "--fail", "--http1.1", "--retry", "20", "--retry-connrefused"],
        *["--retry-delay", "1", "--cacert", str(certificate_authority)],
        *["--connect-to", f"{host}:443:{address}", "--output", str(target), "--write-out", "%{time_total}"],
        f"https://{host}/{url.removeprefix('https://').partition('/')[2]}",
    ]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def check_and_sync(path: Path) -> float:
    """Hash a file and make it durable, as people do after a download; return the seconds that it took."""
    begin = time.monotonic()
    subprocess.run(["sha256sum", str(path)], stdout=subprocess.DEVNULL, check=True)
    subprocess.run(["sync", str(path)], check=True)
    return time.monotonic() - begin


def _find(tool: str) -> str | None:
    """nginx lies in /usr/sbin, which is not on everybody's path."""
    return shutil.which(tool, path=f"{os.environ.get('PATH', '')}{os.pathsep}/usr/sbin{os.pathsep}/usr/local/sbin")
