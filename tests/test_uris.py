"""What a uri that a stranger wrote may do: nothing but give the bytes of a picture, in bounded memory and time."""

import gzip
import http.server
import json
import os
import pickle
import socket
import threading
import time
import tracemalloc
from contextlib import contextmanager, suppress

import pytest
import torch

import polyteach
from polyteach.ground import limits as bounds
from polyteach.ground import uris
from polyteach.ground.limits import Limits, WebAddress
from polyteach.ground.uris import read_uri
from polyteach.loading.plan import plan
from polyteach.store import ImageRow, Store
from polyteach.tasks.classification import ClassificationTarget
from polyteach.tasks.contract import Space
from polyteach.transferring.scoring import evaluate
from polyteach.verbs.store.check import check
from polyteach.verbs.store.repair import repair
from tests.worlds import SMALL, png, store_of

PIXELS = torch.full((3, 16, 20), 90, dtype=torch.uint8)
PICTURE = png(PIXELS)


class Answers(http.server.BaseHTTPRequestHandler):
    """By path: a picture, and every way to do harm. `asked` notes the paths, in order."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def said(self, status=200, length=None, **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        if length is not None:
            self.send_header("Content-Length", str(length))
        self.send_header("Connection", "close")
        self.end_headers()

    def do_GET(self):
        self.server.asked.append(self.path)
        kind, _, rest = self.path.lstrip("/").partition("/")
        with suppress(BrokenPipeError, ConnectionResetError):
            getattr(self, f"on_{kind.partition('.')[0]}", self.on_picture)(rest)

    def on_picture(self, _):
        self.said(length=len(self.server.picture))
        self.wfile.write(self.server.picture)

    def on_to(self, rest):
        self.said(302, 0, Location=self.server.moved[rest])

    def on_loop(self, _):
        self.said(302, 0, Location="/loop")

    def on_chunks(self, _):
        self.said(Transfer_Encoding="chunked")
        for i in range(0, len(PICTURE), 10):
            part = PICTURE[i : i + 10]
            self.wfile.write(b"%x\r\n%b\r\n" % (len(part), part))
        self.wfile.write(b"0\r\n\r\n")

    def on_endless(self, _):
        self.said()
        while True:
            self.wfile.write(bytes(2**16))

    def on_claims(self, _):
        self.said(length=2**40)

    def on_packed(self, _):
        data = gzip.compress(PICTURE)
        self.said(length=len(data), Content_Encoding="gzip")
        self.wfile.write(data)

    def on_drip(self, _):
        self.said(length=len(PICTURE))
        for i in range(len(PICTURE)):
            self.wfile.write(PICTURE[i : i + 1])
            time.sleep(0.05)

    def on_drophead(self, _):
        for byte in b"HTTP/1.1 200 OK\r\n" + b"X-A: b\r\n" * 100:
            self.wfile.write(bytes([byte]))
            time.sleep(0.02)

    def on_cut(self, _):
        self.said(length=len(PICTURE))
        self.wfile.write(PICTURE[:20] if self.server.asked.count(self.path) < 3 else PICTURE)

    def on_busy(self, _):
        if self.server.asked.count(self.path) < 3:
            self.said(503, 0)
        else:
            self.on_picture("")

    def on_down(self, _):
        self.said(500, 0)

    def on_gone(self, _):
        self.said(404, 0)


@contextmanager
def serving():
    """A server on this machine: its address, with a slash, and itself."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    server.asked, server.moved, server.picture, server.daemon_threads = [], {}, PICTURE, True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/", server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def web(monkeypatch):
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(uris, "WAIT", 0.01)
    with serving() as (address, server):
        yield address, server


def refused(uri, limits=None):
    with pytest.raises(OSError) as e:  # noqa: PT011
        read_uri(uri, limits)
    return str(e.value)


# --- files ---


def test_a_path_and_its_file_url_are_one(tmp_path):
    for name in ("a.png", "a b#?%20.png", "ä::ö.png", "in://name.png"):
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(PICTURE)
        assert read_uri(str(file)) == read_uri(f"file://{file}") == read_uri(f"FILE://{file}") == PICTURE
    (tmp_path / "empty").touch()
    assert read_uri(str(tmp_path / "empty")) == b""
    assert read_uri("/proc/self/cmdline")  # a file that has no size
    assert "absolute path" in refused("file://a.png")


def test_regular_files_alone_are_read_without_waiting(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "to-pipe").symlink_to("pipe")
    (tmp_path / "itself").symlink_to("itself")
    at = f"{tmp_path}/"
    reasons = {at + "pipe": "not a regular", at + "to-pipe": "not a regular", at: "a folder", "/dev/zero": "not a reg"}
    reasons |= {at + "itself": "symbolic links", at + "gone": "No such file", at + "n" * 5000: "File name too long"}
    reasons |= {"/a\0b": "null", "": "No such file"}
    for path, reason in reasons.items():
        assert reason in refused(path)
        assert reason in refused(f"file://{path}") or not path
    # what was a file when it was looked at
    file = tmp_path / "file"
    file.write_bytes(PICTURE)
    looked = os.stat(file)
    file.unlink()
    os.mkfifo(file)
    with monkeypatch.context() as m:
        m.setattr(os, "stat", lambda path: looked)
        assert "not a regular" in refused(str(file))


def test_a_file_is_refused_by_its_size_before_it_is_read(tmp_path):
    file = tmp_path / "sparse"
    file.touch()
    os.truncate(file, 8 * 10**12)
    tracemalloc.start()
    try:
        assert "8,000,000,000,000 bytes, where an image's file has at most 400,000,000" in refused(str(file))
        assert "bytes" in refused("/proc/kcore") or not os.access("/proc/kcore", os.R_OK)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2**20
    os.truncate(file, 2**28 + 1)
    assert "268,435,457 bytes" in refused(str(file), Limits(max_pixels=1000))
    assert Limits(max_pixels=10**9).max_bytes == 4 * 10**9


def test_a_file_that_grows_while_it_is_read(tmp_path, monkeypatch):
    file = tmp_path / "growing"
    file.write_bytes(bytes(100))
    small = os.stat(file)
    file.write_bytes(bytes(3 * 10**5))
    monkeypatch.setattr(os, "stat", lambda path: small)
    monkeypatch.setattr(os, "fstat", lambda handle: small)
    monkeypatch.setattr(bounds, "BYTES", (2**20, 0))
    assert read_uri(str(file)) == bytes(3 * 10**5)
    monkeypatch.setattr(bounds, "BYTES", (2**18, 0))
    assert "more bytes, where" in refused(str(file))


# --- protocols ---


@pytest.mark.parametrize(
    "uri",
    [
        "simplecache::http://127.0.0.1/a.png",
        "zip://a.png::http://127.0.0.1/a.zip",
        "zip://a.png::/etc/passwd",
        "reference://x::http://127.0.0.1/",
        "filecache::file:///etc/passwd",
        "github://org:repo@/a.png",
        "local:///etc/passwd",
        "dir://a::file:///etc",
        "jupyter://127.0.0.1/a",
        "ftp://127.0.0.1/a",
        "sftp://127.0.0.1/a",
        "smb://127.0.0.1/a",
        "data://x",
        "wat://x",
        "://x",
        "x\0://y",
    ],
)
def test_protocols_are_allowed_by_name(uri, monkeypatch):
    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("it was asked"))
    said = refused(uri, Limits(("http", "https", "http://127.0.0.1/")))
    assert ("chain of URLs" if "::" in uri else "no protocol that is read") in said


def test_objects(monkeypatch):
    from polyteach.ground.storage.requests import client_of

    client_of("memory://b").pipe_file("/b/a b.png", PICTURE)
    assert read_uri("memory://b/a b.png") == PICTURE
    assert "gone" in refused("memory://b/gone.png")
    monkeypatch.setattr(bounds, "BYTES", (50, 0))
    assert f"{len(PICTURE)} bytes, where" in refused("memory://b/a b.png")


def test_any_error_of_a_client_is_the_images(monkeypatch):
    def boom(*_):
        raise KeyError("no such thing")

    monkeypatch.setattr("polyteach.ground.storage.ObjectPath.about", boom)
    assert "KeyError" in refused("s3://bucket/a.png")


# --- what may be asked ---


@pytest.mark.parametrize(
    ("allowed", "url", "may"),
    [
        ((), "https://good.example/a", False),
        (("https",), "https://good.example/a", True),
        (("https",), "http://good.example/a", False),
        (("http://good.example",), "http://good.example/a?b=c", True),
        (("http://good.example/",), "HTTP://GOOD.example.:80/a", True),
        (("http://good.example",), "http://good.example.evil/", False),
        (("http://good.example",), "http://good.example:81/", False),
        (("http://good.example",), "https://good.example/", False),
        (("http://good.example/img",), "http://good.example/img/a.png", True),
        (("http://good.example/img",), "http://good.example/img?a", True),
        (("http://good.example/img/",), "http://good.example/./x/../img/a.png", True),
        (("http://good.example/img",), "http://good.example/imgs/a.png", False),
        (("http://good.example/img",), "http://good.example/img/../a.png", False),
        (("http://good.example/img",), "http://good.example/img/%2e%2E/a.png", False),
        (("http://good.example/img",), "http://good.example/img/..%2fa.png", False),
        (("http://good.example/img",), "http://good.example/img/%252e%252e/a.png", False),
        (("http://good.example/img",), "http://good.example/img/..%5ca.png", False),
        (("http://[::1]:8000/",), "http://[0:0::1]:8000/a", False),  # another text: it has to be written so
    ],
)
def test_a_beginning_is_compared_by_its_parts(allowed, url, may):
    assert Limits(allowed).allows(WebAddress.parsed(url)) is may


@pytest.mark.parametrize(
    "url",
    [
        "http://good.example@evil/",
        "http://good.example:80@evil/",
        "http://good.example\\@evil/",
        "http://good.example\n.evil/",
        "http://good.example/\0",
        "http://good.example/\x7f",
        "http://good.example/\ud800",
        "http://good.example:99999/",
        "http://good.example:x/",
        "http:///a",
        "http:good.example/a",
        "http://[::1/",
        "http://a b/",
        "http://" + "a" * 300 + "/",
        "http://.../",
    ],
)
def test_urls_that_are_none(url):
    with pytest.raises(ValueError, match=r".") as e:
        WebAddress.parsed(url)
    assert url not in str(e.value)
    assert refused(url, Limits(("http", "https", "http://good.example/")))


def test_what_may_be_allowed():
    for given in ("s3", "ftp://x/", "good.example", "https://a@b/", "https://a/?b", "", "https://a/#b"):
        with pytest.raises(ValueError, match=r"allow_remote: .* give a protocol"):
            Limits((given,))
    with pytest.raises(ValueError, match="max_pixels must be at least 1; got 0"):
        Limits(max_pixels=0)


def test_a_url_keeps_what_it_says():
    for url in ("https://a.b/web/2020/http://c.d//e", "http://a.b:81/%20x%2Fy?z=%26&w", "http://[2001:db8::1]/"):
        assert str(WebAddress.parsed(url)) == url
    assert str(WebAddress.parsed("http://a.b/ä ö.png?ü")) == "http://a.b/%C3%A4%20%C3%B6.png?%C3%BC"
    assert str(WebAddress.parsed("http://ä.b")) == "http://xn--4ca.b/"


@pytest.mark.parametrize(
    ("address", "inside"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("0.0.0.0", True),
        ("10.1.2.3", True),
        ("172.16.0.1", True),
        ("192.168.1.1", True),
        ("169.254.169.254", True),
        ("100.64.0.1", True),
        ("224.0.0.1", True),
        ("239.1.1.1", True),
        ("255.255.255.255", True),
        ("240.0.0.1", True),
        ("::1", True),
        ("::", True),
        ("fe80::1%eth0", True),
        ("fec0::1", True),
        ("fd00::1", True),
        ("ff02::1", True),
        ("::ffff:10.0.0.1", True),
        ("::127.0.0.1", True),
        ("64:ff9b::a9fe:a9fe", True),
        ("2002:7f00:1::", True),
        ("8.8.8.8", False),
        ("::ffff:8.8.8.8", False),
        ("2606:4700:4700::1111", False),
        ("64:ff9b::808:808", False),
    ],
)
def test_addresses_of_the_own_network(address, inside):
    assert uris._inside(address) is inside


# --- web servers ---


def test_nothing_is_asked_that_was_not_allowed(web):
    address, server = web
    assert "is not asked: allow it with --allow-remote http" in refused(address)
    assert "is not asked" in refused(address, Limits(("https", "http://127.0.0.1:1/")))
    assert server.asked == []


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "2130706433", "0x7f.1", "0.0.0.0", "[::ffff:127.0.0.1]"])
def test_the_own_network_is_refused_after_its_name_was_looked_up(web, host):
    address, server = web
    assert "own network" in refused(address.replace("127.0.0.1", host), Limits(("http",)))
    assert server.asked == []


def test_the_address_that_was_looked_at_is_the_one_that_is_connected_to(web, monkeypatch):
    """A name that means another address the second time, as of a server that rebinds."""
    _, server = web
    looked = socket.getaddrinfo
    names = []

    def rebinding(host, port, *rest, **options):
        names.append(host)
        if host == "good.example":
            return looked("8.8.8.8" if names.count(host) == 1 else "127.0.0.1", port, *rest, **options)
        return looked(host, port, *rest, **options)

    tried = []

    def connect(address, timeout, source=None):
        tried.append(address)
        raise ConnectionRefusedError("nobody")

    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    monkeypatch.setattr(socket, "create_connection", connect)
    monkeypatch.setattr(uris, "TRIES", 1)
    assert "nobody" in refused(f"http://good.example:{server.server_port}/", Limits(("http",)))
    assert tried == [("8.8.8.8", server.server_port)]


def test_a_name_with_one_address_inside_is_refused_whole(web, monkeypatch):
    found = [(socket.AF_INET, 1, 6, "", (a, 80)) for a in ("8.8.8.8", "10.0.0.1")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    monkeypatch.setattr(socket, "create_connection", lambda *_: pytest.fail("it was asked"))
    assert "good.example (10.0.0.1) is in this machine's own network" in refused(
        "http://good.example/", Limits(("http",))
    )


def test_what_is_allowed_is_fetched(web):
    address, server = web
    limits = Limits((address,))
    assert read_uri(f"{address}a/ä b.png", limits) == PICTURE
    assert read_uri(f"{address}chunks", limits) == PICTURE
    assert server.asked == ["/a/%C3%A4%20b.png", "/chunks"]
    assert refused(f"{address}gone", limits) == "HTTP 404 Not Found"


def test_redirects(web):
    address, server = web
    with serving() as (other, elsewhere):
        server.moved = {
            "here": "/picture",
            "there": f"{other}picture",
            "file": "file:///etc/passwd",
            "ftp": "ftp://127.0.0.1/x",
            "out": "/../up",
            "nowhere": "",
            "user": f"http://me@127.0.0.1:{elsewhere.server_port}/",
        }
        limits = Limits((f"{address}to", f"{address}picture", f"{address}loop"))
        assert read_uri(f"{address}to/here", limits) == PICTURE
        assert "is not asked" in refused(f"{address}to/there", limits)
        assert "not a URL that begins with" in refused(f"{address}to/file", limits)
        assert "not a URL that begins with" in refused(f"{address}to/ftp", limits)
        assert "is not asked" in refused(f"{address}to/out", limits)
        assert "name or password" in refused(f"{address}to/user", limits)
        assert elsewhere.asked == []
        assert read_uri(f"{address}to/there", Limits((address, other))) == PICTURE
        # that it was allowed by name goes for the first alone
        assert "own network" in refused(f"{address}to/there", Limits((address, "http")))
        del server.asked[:]
        assert "more than 5 redirects" in refused(f"{address}loop", limits)
        assert len(server.asked) == 6


def test_bytes_are_counted_while_they_come(web, monkeypatch):
    address, server = web
    limits = Limits((address,))
    monkeypatch.setattr(bounds, "BYTES", (2**20, 0))
    tracemalloc.start()
    try:
        assert "more bytes, where an image's file has at most 1,048,576" in refused(f"{address}endless", limits)
        assert "1,099,511,627,776 bytes, where" in refused(f"{address}claims", limits)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2**23
    assert "packed it (gzip)" in refused(f"{address}packed", limits)
    assert len(server.asked) == 3


@pytest.mark.parametrize("kind", ["drip", "drophead"])
def test_all_together_has_an_end(web, kind, monkeypatch):
    address, _ = web
    monkeypatch.setattr(bounds, "SECONDS", 0.3)
    start = time.monotonic()
    assert "127.0.0.1 took longer than 0.3 seconds" in refused(f"{address}{kind}", Limits((address,)))
    assert time.monotonic() - start < 2


def test_a_server_that_says_nothing(monkeypatch):
    monkeypatch.setattr(bounds, "SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        for protocol in ("http", "https"):
            address = f"{protocol}://127.0.0.1:{silent.getsockname()[1]}/"
            assert "took longer than 0.3 seconds" in refused(address, Limits((address,)))


def test_what_passes_is_tried_again(web):
    address, server = web
    limits = Limits((address,))
    assert read_uri(f"{address}busy", limits) == PICTURE
    assert read_uri(f"{address}cut", limits) == PICTURE
    assert server.asked == ["/busy"] * 3 + ["/cut"] * 3
    assert "HTTP 500 Internal Server Error, 3 times" in refused(f"{address}down", limits)
    server.shutdown()
    server.server_close()
    assert "refused, 3 times" in refused(address, limits)


def test_a_proxy_is_used_for_what_was_allowed_by_name_alone(web, monkeypatch):
    """It hides where a server is."""
    address, server = web
    monkeypatch.setenv("http_proxy", address)
    assert "a proxy (http_proxy) stands before pictures.example" in refused(
        "http://pictures.example/a.png", Limits(("http",))
    )
    assert server.asked == []
    assert read_uri("http://pictures.example/a.png", Limits(("http://pictures.example/",))) == PICTURE
    assert server.asked == ["http://pictures.example/a.png"]
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with serving() as (other, elsewhere):
        assert read_uri(f"{other}b.png", Limits((other,))) == PICTURE
        assert elsewhere.asked == ["/b.png"]


def test_certificates_are_checked(web, tmp_path):
    """An https URL of a server that speaks none, or with a certificate of nobody known, is an error of the image."""
    address, _ = web
    secure = address.replace("http://", "https://")
    assert "SSL" in refused(secure, Limits((secure,)))


# --- in the verbs ---


def store_with(path, *uris):
    """A store of a good picture, one for each uri, and another good one."""
    bad = [ImageRow(f"bad{i}", 16, 20, uri=u) for i, u in enumerate(uris)]
    good = [ImageRow(name, 16, 20, data=PICTURE) for name in ("first", "last")]
    return store_of(path, [good[0], *bad, good[1]])


def test_limits_travel_with_a_store(tmp_path, web):
    address, server = web
    store_with(tmp_path / "s", f"{address}a.png")
    limits = Limits((address,), 1000)
    for store in (opened := Store.open(tmp_path / "s", limits=limits), pickle.loads(pickle.dumps(opened))):
        assert store.limits == limits
        assert store.picture(store.images(0)[1]).equal(PIXELS)
    with pytest.raises(OSError, match="is not asked"):
        Store.open(tmp_path / "s").picture(store.images(0)[1])
    assert len(server.asked) == 2


BAD = (
    "wat://x",
    "/a\0b",
    "http://127.0.0.1:1/x",
    "zip://a::/etc/passwd",
    "s3:///",
    "file:///dev/zero",
    "\n",
    "a" * 5000,
)


def test_labelling_goes_on(tmp_path, teacher, web):
    address, _ = web
    store = store_with(tmp_path / "s", *BAD, f"{address}a.png")
    polyteach.label(store.path, teachers={"a": teacher + "mean"}, progress=False)
    (labels,) = store.sets()
    states = [s for p in labels.parts() for s in labels.states(p)]
    assert states == ["labelled"] + ["failed"] * (len(BAD) + 1) + ["labelled"]
    reasons = [a for p in labels.parts() for a in labels.read(p) if isinstance(a, str)]
    assert "no protocol that is read" in reasons[0]
    assert "null" in reasons[1]
    assert "is not asked" in reasons[-1]
    options = {"teachers": {"a": teacher + "mean"}, "allow_remote": [address], "retry": True, "progress": False}
    polyteach.label(store.path, **options)
    assert [s for p in labels.parts() for s in labels.states(p)].count("labelled") == 3


def test_check_names_each(tmp_path, web, capsys):
    address, _ = web
    store = store_with(tmp_path / "s", *BAD, f"{address}a.png")
    with pytest.raises(ValueError, match=f"{len(BAD) + 1} images of .* cannot be read from here"):
        check(store.path, deep=True, progress=False)
    said = capsys.readouterr().out
    assert all(f"image 'bad{i}': " in said for i in range(len(BAD) + 1))
    with pytest.raises(ValueError, match=f"{len(BAD)} images of"):
        check(store.path, deep=True, allow_remote=[address], progress=False)
    with pytest.raises(ValueError, match=f"{len(BAD) + 3} faults"):
        check(store.path, deep=True, max_pixels=319, progress=False)


def test_repair_takes_away_nothing_that_it_cannot_look_at(tmp_path, web, capsys):
    address, server = web
    store = store_with(tmp_path / "s", str(tmp_path / "gone.png"), f"{address}a.png")
    repair(store.path, deep=True, progress=False)
    left = [id for part in store.parts() for id in store.ids(part)]
    assert {"bad0", "bad1"} <= set(left)
    assert "is whole, but for 2 images that cannot be read from here" in capsys.readouterr().out
    with pytest.raises(ValueError, match=r"2 images of .* cannot be read from here, which no repair mends"):
        check(store.path, deep=True, progress=False)
    assert not server.asked


def test_training_replaces_what_cannot_be_read_and_names_it(tmp_path, web):
    """Also where processes read the images, which get the limits with the store."""
    address, server = web
    store = store_with(tmp_path / "s", *BAD, f"{address}a.png")
    labels = store.create_set("classification", "t", Space(("a", "b"), "names"), {})
    target = ClassificationTarget(torch.tensor([1.0, 0.0]))
    for part in store.parts():
        labels.write(part, store.ids(part), [target] * store.count(part))
    small = SMALL | {"size": 32, "workers": 2}
    run = polyteach.train(store.path, out=tmp_path / "run", epochs=2.0, allow_remote=[address], **small)
    rejects = [json.loads(line) for line in (tmp_path / "run" / "rejects.jsonl").read_text().splitlines()]
    # where each lies: four images a part, the first of them good
    where = {f"bad{i}": (1 + i) // 4 for i in range(len(BAD))}
    assert {r["id"]: r["part"] for r in rejects} == where
    assert {r["store"] for r in rejects} == {str(store.path)}
    assert "no protocol that is read" in next(r["reason"] for r in rejects if r["id"] == "bad0")
    assert json.loads((tmp_path / "run" / "config.json").read_text())["options"]["allow_remote"] == [address]
    assert "/a.png" in server.asked
    assert run == str(tmp_path / "run")


def test_pretraining_and_evaluation_go_on(tmp_path):
    store = store_with(tmp_path / "s", *BAD)
    polyteach.pretrain(store.path, out=tmp_path / "run", steps=3, size=32, **SMALL)
    rejects = [json.loads(line) for line in (tmp_path / "run" / "rejects.jsonl").read_text().splitlines()]
    assert {r["id"] for r in rejects} == {f"bad{i}" for i in range(len(BAD))}
    labels = store.create_set("classification", "t", Space(("a", "b"), "names"), {})
    target = ClassificationTarget(torch.tensor([1.0, 0.0]))
    for part in store.parts():
        labels.write(part, store.ids(part), [target] * store.count(part))
    found = evaluate(lambda images: [target] * len(images), plan([Store.open(store.path)]), "classification_t")
    assert [id for id, _ in found.failed] == [f"bad{i}" for i in range(len(BAD))]
    assert found.scores["top-1"] == 100
