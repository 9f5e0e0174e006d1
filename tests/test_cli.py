"""The fastnet command; downloads come from a server on this computer that misbehaves on demand."""

import hashlib
import os
import re
import subprocess
import sys
import types
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import cifar_files
import pytest
from fastnet.kernels.codegen import cache

import fastnet
from fastnet import cli
from fastnet.cli import cache as cache_command
from fastnet.cli import data
from fastnet.dataset import _download, _files, cifar100


class Server(ThreadingHTTPServer):
    """Serves ``content``, and remembers where each request began."""

    content = b""
    ranges = True  # answers requests for a part with that part
    breaks_after: int | None = None  # bytes, after which a connection is closed
    refuses_after: int | None = None  # requests, after which every one is closed without an answer
    status = 200
    headers: tuple = ()

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.starts = []

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}/cifar-100-python.tar.gz"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        server = self.server
        asked = self.headers.get("Range")
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and server.ranges else 0
        if server.refuses_after is not None and len(server.starts) >= server.refuses_after:
            self.close_connection = True
            return
        server.starts.append(start)
        if start and start >= len(server.content):
            self.send_error(416)
            return
        self.send_response(206 if start else server.status)
        self.send_header("Content-Length", str(len(server.content) - start))
        for header in server.headers:
            self.send_header(*header)
        self.end_headers()
        stop = None if server.breaks_after is None else start + server.breaks_after
        self.wfile.write(server.content[start:stop])

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with Server() as server:
        monkeypatch.setenv("FASTNET_CIFAR100_URL", server.url)
        monkeypatch.setattr(_download, "WAIT", 0)
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def files(monkeypatch):
    """The three files of a small CIFAR-100, taken for the published one."""
    contents = cifar_files.contents()
    files = {name: cifar_files.python2_pickle(content) for name, content in contents.items()}
    monkeypatch.setattr(_files, "N_IMAGES", cifar_files.N_IMAGES)
    monkeypatch.setattr(_files, "MD5", {name: hashlib.md5(content).hexdigest() for name, content in files.items()})
    return files


@pytest.fixture
def publish(server, monkeypatch):
    """Put an archive of these members on the server, as the published one."""

    def publish(members):
        server.content = cifar_files.archive(members)
        monkeypatch.setattr(_download, "SHA256", hashlib.sha256(server.content).hexdigest())

    return publish


@pytest.fixture
def published(files, publish):
    publish({f"cifar-100-python/{name}": content for name, content in files.items()})


@pytest.fixture
def download(tmp_path, monkeypatch):
    """Run ``fastnet data download --to`` a folder; return the exit code."""
    monkeypatch.delenv("FASTNET_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return lambda: cli.main(["data", "download", "--to", str(tmp_path / "data")])


def assert_unpacked(folder, files):
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == files


@pytest.mark.usefixtures("published")
def test_download(download, server, files, tmp_path, capsys):
    assert download() == 0
    assert_unpacked(tmp_path / "data", files)
    out, err = capsys.readouterr()
    assert "CIFAR-100 is in" in out and f"FASTNET_DATA={tmp_path / 'data'}" in out
    assert "up to an hour" in err
    assert cifar100(1, root=tmp_path / "data").class_names
    assert download() == 0
    assert "was already in" in capsys.readouterr().out
    assert server.starts == [0], "what is there is not fetched again"


@pytest.mark.usefixtures("published")
def test_download_goes_where_cifar100_looks(files, tmp_path, monkeypatch, capsys, download):
    for environment in ({}, {"FASTNET_DATA": str(tmp_path / "mine")}):
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        assert cli.main(["data", "download"]) == 0
        assert cli.main(["data", "path"]) == 0
        folder = Path(capsys.readouterr().out.splitlines()[-1])
        assert_unpacked(folder, files)
        assert folder.is_relative_to(environment.get("FASTNET_DATA", tmp_path / "cache"))


@pytest.mark.usefixtures("published")
def test_a_broken_connection_is_resumed(download, server, files, tmp_path):
    server.breaks_after = len(server.content) // 3 + 1
    assert download() == 0
    assert server.starts == [0, server.breaks_after, 2 * server.breaks_after]
    assert_unpacked(tmp_path / "data", files)


@pytest.mark.usefixtures("published")
def test_a_download_given_up_is_resumed_by_the_next(download, server, files, tmp_path, capsys):
    server.breaks_after, server.refuses_after = 100_000, 2
    assert download() == 1
    message = capsys.readouterr().err
    assert "Could not download" in message and "0.2 MB are in" in message and "run the same command again to resume" in message
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["cifar-100-python.tar.gz.part"]
    server.breaks_after = server.refuses_after = None
    assert download() == 0
    assert server.starts == [0, 100_000, 200_000]
    assert_unpacked(tmp_path / "data", files)


@pytest.mark.usefixtures("published")
def test_a_server_that_cannot_resume_starts_over(download, server, files, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "cifar-100-python.tar.gz.part").write_bytes(b"what came before")
    server.ranges = False
    assert download() == 0
    assert_unpacked(tmp_path / "data", files)


@pytest.mark.usefixtures("published")
def test_a_complete_part_is_not_fetched_again(download, server, files, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "cifar-100-python.tar.gz.part").write_bytes(server.content)
    assert download() == 0
    assert server.starts == [len(server.content)]
    assert_unpacked(tmp_path / "data", files)


@pytest.mark.usefixtures("published")
def test_a_server_that_calls_the_archive_compressed_content(download, server, files, tmp_path):
    server.headers = (("Content-Encoding", "gzip"),)
    assert download() == 0
    assert_unpacked(tmp_path / "data", files)


@pytest.mark.usefixtures("published")
def test_a_wrong_digest_is_deleted_unopened(download, server, files, tmp_path, capsys, monkeypatch):
    good = server.content
    server.content = good[:-1] + b"?"
    with monkeypatch.context() as patch:
        patch.setattr(_download, "_extract", None)
        assert download() == 1
    assert "not CIFAR-100's archive: its sha256 is not" in capsys.readouterr().err
    assert list((tmp_path / "data").iterdir()) == []
    server.content = good
    assert download() == 0
    assert_unpacked(tmp_path / "data", files)


def test_no_path_can_escape_and_only_three_members_come_out(download, files, publish, tmp_path):
    members = {f"cifar-100-python/{name}": content for name, content in files.items()}
    extra = (
        "../escaped",
        str(tmp_path / "absolute"),
        "cifar-100-python/../../escaped",
        "cifar-100-python/more",
        "train",
    )
    publish({**dict.fromkeys(extra, b"trouble"), **members})
    assert download() == 0
    assert_unpacked(tmp_path / "data", files)
    assert {path.name for path in tmp_path.iterdir()} <= {"data", "cache"}


@pytest.mark.parametrize(
    ("edit", "match"),
    [
        (lambda members: members.pop("cifar-100-python/meta"), "meta' not found"),
        (
            lambda members: members.update({"cifar-100-python/test": b"other"}),
            "test in the archive is not the published",
        ),
    ],
)
def test_an_archive_with_other_content(download, files, publish, tmp_path, capsys, edit, match):
    members = {f"cifar-100-python/{name}": content for name, content in files.items()}
    edit(members)
    publish(members)
    assert download() == 1
    assert match in capsys.readouterr().err
    assert {path.name for path in (tmp_path / "data").iterdir()} <= {"train", "test", "cifar-100-python.tar.gz"}


@pytest.mark.usefixtures("published")
def test_a_page_that_is_not_there(download, server, capsys):
    server.status = 404
    assert download() == 1
    assert "404" in capsys.readouterr().err
    assert server.starts == [0], "asking again would not help"


@pytest.mark.parametrize("url", ["nonsense", "gopher://127.0.0.1/x", "http://"])
def test_an_address_that_is_none(download, monkeypatch, capsys, url):
    monkeypatch.setenv("FASTNET_CIFAR100_URL", url)
    assert download() == 1
    assert f"Could not download {url}" in capsys.readouterr().err


@pytest.mark.usefixtures("published")
def test_a_folder_that_cannot_be_made(tmp_path, capsys):
    (tmp_path / "flat").write_text("a file")
    assert cli.main(["data", "download", "--to", str(tmp_path / "flat" / "data")]) == 1
    assert "flat" in capsys.readouterr().err


def test_data_path_without_data(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for name in ("FASTNET_DATA", "KERAS_HOME"):
        monkeypatch.delenv(name, raising=False)
    assert cli.main(["data", "path"]) == 1
    out, err = capsys.readouterr()
    assert out == "" and "fastnet: CIFAR-100 was not found" in err


def test_ctrl_c(monkeypatch, capsys):
    def interrupted(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(data, "execute", interrupted)
    assert cli.main(["data", "path"]) == 130
    assert capsys.readouterr().err == "fastnet: stopped.\n"


@pytest.mark.parametrize("arguments", [[], ["data"], ["nothing"], ["data", "nothing"]])
def test_usage(arguments, capsys):
    with pytest.raises(SystemExit) as info:
        cli.main(arguments)
    assert info.value.code == 2
    assert "usage: fastnet" in capsys.readouterr().err


def test_another_module_adds_a_subcommand(monkeypatch):
    module = types.SimpleNamespace(add_arguments=lambda parser: parser.add_argument("n", type=int),
                                   execute=lambda arguments: arguments.n)
    monkeypatch.setitem(cli.COMMANDS, "count", ("counting.command", "count"))
    monkeypatch.setitem(sys.modules, "counting.command", module)
    assert cli.main(["count", "3"]) == 3


def test_only_the_module_of_the_command_is_imported():
    code = ("import sys; from fastnet import cli\ntry: cli.main({arguments})\nexcept SystemExit: pass\n"
            "print(*(path for path, _ in cli.COMMANDS.values() if path in sys.modules))")
    for arguments, imported in ((["--help"], ""), (["cache"], "fastnet.cli.cache"), (["check", "--help"], "fastnet.check._command")):
        done = subprocess.run([sys.executable, "-c", code.format(arguments=arguments)], capture_output=True, text=True, check=True,
                              env={**os.environ, "PYTHONPATH": str(Path(fastnet.__file__).parents[1])})
        assert done.stdout.splitlines()[-1] == imported


def test_as_a_module():
    command = [sys.executable, "-X", "importtime", "-m", "fastnet", "--version"]
    environment = {**os.environ, "PYTHONPATH": str(Path(fastnet.__file__).parent.parent)}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert done.stdout == f"fastnet {fastnet.__version__}\n"
    for heavy in ("matplotlib", "pooch", "requests", "torch"):
        assert not re.search(rf"\| +{heavy}$", done.stderr, re.MULTILINE), f"{heavy} is imported for nothing"


def test_a_home_that_nobody_has(monkeypatch, capsys):
    monkeypatch.setenv("FASTNET_DATA", "~nobody-of-this-name/data")
    assert cli.main(["data", "download"]) == 1
    assert "FASTNET_DATA is ~nobody-of-this-name/data, but that home directory does not exist" in capsys.readouterr().err


def test_a_cache_that_nothing_can_be_kept_in(monkeypatch, capsys):
    for digest, said in ((None, "as files or as a zip"), ("0123", "Set FASTNET_CACHE_DIR")):
        monkeypatch.setattr(cache, "DIGEST", digest)
        monkeypatch.setattr(cache, "CACHE", None)
        assert cli.main(["cache"]) == 1
        assert said in capsys.readouterr().out


# --- pipes ------------------------------------------------------------------------------------------------------------

PIPES = pytest.mark.skipif(os.name == "nt", reason="pipes as POSIX has them")
# The reader of the output is gone before the first line
NO_READER = """
import os, sys
read, write = os.pipe()
os.close(read)
os.dup2(write, 1)
if {both}: os.dup2(write, 2)
sys.argv[0] = "fastnet"
from fastnet import cli
from fastnet.cli import doctor
from fastnet.cli.peak import Rate
doctor.fma_peak = lambda dtype: Rate(1e11, 2.0, 2, 1.0)
doctor.products = lambda dtype: [doctor.Product("a product", Rate(9e10, 2.0, 2, 1.0))] * 5000
{before}
sys.exit(cli.main({arguments!r}))
"""


def without_reader(arguments, both=False, unbuffered="", before=""):
    return subprocess.run([sys.executable, "-c", NO_READER.format(arguments=arguments, both=both, before=before)], text=True,
                          capture_output=True, timeout=240,
                          env={**os.environ, "PYTHONPATH": str(Path(fastnet.__file__).parents[1]), "PYTHONUNBUFFERED": unbuffered})


@PIPES
@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("arguments", [["doctor"], ["cache"], ["--help"], ["sweep", "--help"], ["compare", "--help"], ["--version"]],
                         ids=" ".join)
def test_commands_end_quietly_when_nobody_reads_any_more(arguments, unbuffered):
    result = without_reader(arguments, unbuffered=unbuffered)
    quiet = {141, 0} if unbuffered and "--" in arguments[-1] else {141}  # argparse then ignores it itself
    assert result.returncode in quiet and result.stderr == ""


@PIPES
def test_both_streams_into_one_pipe():
    assert without_reader(["doctor"], both=True).returncode == 141


def test_a_broken_pipe_of_something_else_is_an_error(monkeypatch):
    def breaks(_):
        raise BrokenPipeError(32, "Broken pipe", "of a worker")

    monkeypatch.setattr(cache_command, "execute", breaks)
    with pytest.raises(BrokenPipeError, match="of a worker"):
        cli.main(["cache"])
