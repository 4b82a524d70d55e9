# SPDX-License-Identifier: BSD-3-Clause
# The part of crypto.pyx that writes files.

from errno import EINVAL as _EINVAL
from os import fsencode as _fsencode


cdef extern from "crypto/prefix_file.h" namespace "e2" nogil:
    Status c_write_prefix_maps "e2::write_prefix_maps"(
        const string&, const vector[const EncryptedPrefixes*]&) except +


def write_prefix_maps(path, PrefixMap src not None, PrefixMap dst not None,
                      PrefixMap sport not None, PrefixMap dport not None):
    """Writes the file that PrefixMatchEncrypt loads: the maps of addresses and ports.

    The keys of the maps aren't in it; who reads it learns which prefix stands for which values, so
    nobody but its owner may. An existing file is replaced as a whole.
    """
    cdef vector[const EncryptedPrefixes*] maps
    maps.push_back(src.prefixes.get())
    maps.push_back(dst.prefixes.get())
    maps.push_back(sport.prefixes.get())
    maps.push_back(dport.prefixes.get())
    cdef Status status = c_write_prefix_maps(_fsencode(path), maps)
    if status.code == _EINVAL:
        raise CryptoError(status.message.decode())
    if not status.ok():
        raise OSError(status.code, status.message.decode())
