"""Paths in object storage (s3://, gs://, memory://) that speak as much of `pathlib` as a store needs.

A path on this machine, and a file:// URL, is a `pathlib.Path` as ever; `to_path` tells the two apart, and nothing above
has to. Credentials and endpoints are the usual ones of the environment (AWS_PROFILE, AWS_ENDPOINT_URL, fsspec's
configuration files).

- **Whole or absent.** An object appears at once, by a PUT or by the end of a multipart upload, and its length is
  compared afterwards. Protocols that cannot promise that are refused.
- **Retries.** Whatever may pass (timeouts, 5xx, a body that is shorter than asked for) is tried again, `TRIES` times,
  after waits that double and are drawn at random up to that, so that many machines do not come back at once.
- **Listings may be stale.** What this process wrote is in every listing that it makes, and `confirmed` asks for
  numbered files by name, so that a listing decides nothing alone.
- **Cache.** Objects are read in blocks of 1 MiB, which are kept in a folder of bounded size, least recently used out
  first, under the object's URL, size and entity tag; all processes of a machine share it, and only one of them fetches
  a block. `ahead` fetches in the background.
"""

from polyteach.ground.storage.cache import cache_folder, spool
from polyteach.ground.storage.objects import ObjectPath
from polyteach.ground.storage.paths import AnyPath, below, move, stamps, to_path, total
from polyteach.ground.storage.reader import Reader
from polyteach.ground.storage.requests import ATOMIC, StorageError

__all__ = [
    "ATOMIC", "AnyPath", "ObjectPath", "Reader", "StorageError", "below", "cache_folder", "move", "spool", "stamps",
    "to_path", "total",
]  # fmt: skip
