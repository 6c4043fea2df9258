import hashlib
import io
import itertools
import threading
import zipfile

import numpy as np
import pytest
from PIL import Image

from ddpm_jax.core import errors
from ddpm_jax.data import decoding, files, pipeline, reading, sources
from ddpm_jax.data.order import Order

CLASSES = ("cat", "dog", "eel")
PER_CLASS = 12


def pixels(seed, height=16, width=16, channels=3):
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (height, width, channels), dtype=np.uint8)
    return image[..., 0] if channels == 1 else image


def encoded(image, form="PNG"):
    file = io.BytesIO()
    Image.fromarray(image).save(file, form)
    return file.getvalue()


def content(height=16, width=16):
    """{name: bytes} of three classes of PNG files."""
    return {
        f"{name}/{i:02}.png": encoded(pixels(100 * k + i, height, width))
        for k, name in enumerate(CLASSES)
        for i in range(PER_CLASS)
    }


def write(root, named):
    for name, data in named.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data.encode() if isinstance(data, str) else data)
    return root


def zipped(path, named):
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in named.items():
            archive.writestr(name, data)
    return path


def load(path, split="train", *, source="folder", said=None, **options):
    said = [] if said is None else said
    return sources.load(source, split, path=path, say=said.append, **options)


def everything(dataset):
    return dataset.fetch(range(len(dataset)))


def refusal(path, **options):
    with pytest.raises(errors.Refusal) as refused:
        load(path, **options)
    return str(refused.value)


# ---- what is read --------------------------------------------------------------------


def test_every_image_and_class_arrives_in_one_of_the_splits(tmp_path):
    write(tmp_path, content())
    found = {}
    for split in sources.SPLITS:
        dataset = load(tmp_path, split)
        assert dataset.shape == (16, 16, 3)
        assert (dataset.levels, dataset.num_classes) == (256, 3)
        assert dataset.class_names == CLASSES
        batch = everything(dataset)
        assert batch["image"].dtype == np.float32
        assert batch["label"].dtype == np.int32
        for image, label in zip(batch["image"], batch["label"], strict=True):
            grey = (image.astype(np.float64) + 1) * 127.5
            np.testing.assert_allclose(grey, np.rint(grey), atol=1e-5)
            found[np.rint(grey).astype(np.uint8).tobytes()] = (split, label)
    assert len(found) == len(CLASSES) * PER_CLASS
    for name, data in content().items():
        split, label = found[np.asarray(Image.open(io.BytesIO(data))).tobytes()]
        assert CLASSES[label] == name.split("/")[0]
        # The first 64 bits of SHA-256 as a fraction, by its hexadecimal digits.
        fraction = int(hashlib.sha256(name.encode()).hexdigest()[:16], 16) / 2**64
        assert split == ("test" if fraction < 0.2 else "train")


def test_new_files_move_no_other_between_the_splits(tmp_path):
    write(tmp_path, content())
    before = {image.tobytes() for image in everything(load(tmp_path, "test"))["image"]}
    write(tmp_path, {f"dog/a{i}.png": encoded(pixels(999 + i)) for i in range(9)})
    after = {image.tobytes() for image in everything(load(tmp_path, "test"))["image"]}
    assert before <= after


def test_one_class_is_remarked_with_the_folders_below(tmp_path):
    nested = {f"a/b/{name}": data for name, data in content().items()}
    said = []
    load(write(tmp_path / "f", nested), said=said)
    [told] = [line for line in said if line.startswith("one class, 'a'")]
    assert "the folders below (cat, dog, eel)" in told
    advised = told.rpartition("set data.path to ")[2]
    assert advised == f"{tmp_path}/f/a/b"
    assert load(advised, said=said).class_names == CLASSES
    load(zipped(tmp_path / "a.zip", nested), source="zip", said=said)
    assert said[-1].endswith("unpack it and set data.path to its folder a/b")
    flat = {f"a/{name}": data for name, data in many().items()}
    load(write(tmp_path / "g", flat), said=said)
    assert said[-1].startswith("one class, 'a'")
    splits = {f"a/{s}/{n}": d for n, d in content().items() for s in ("test", "train")}
    load(write(tmp_path / "h", splits), said=said)
    assert "below it are the splits test, train" in said[-1]
    assert said[-1].endswith(f"set data.path to {tmp_path}/h/a/train")


def test_the_fingerprint_covers_names_sizes_and_labels_but_not_times(tmp_path):
    write(tmp_path, content())
    before = load(tmp_path).fingerprint()
    assert load(tmp_path, "test").fingerprint() != before
    write(tmp_path, content())  # new times
    assert load(tmp_path).fingerprint() == before
    assert load(tmp_path, labels="none").fingerprint() != before
    (tmp_path / "cat/00.png").rename(tmp_path / "cat/0.png")
    renamed = load(tmp_path).fingerprint()
    assert renamed != before
    with open(tmp_path / "cat/0.png", "ab") as file:
        file.write(b"longer")
    assert load(tmp_path).fingerprint() != renamed


def test_what_is_passed_over_and_done_unasked_is_said(tmp_path):
    named = content()
    named |= {
        ".hidden/1.png": b"",
        "cat/.DS_Store": b"",
        "notes.txt": "a",
        "a.json": "",
    }
    exif = Image.Exif()
    exif[0x0112] = 3
    file = io.BytesIO()
    Image.fromarray(pixels(1)).save(file, "JPEG", exif=exif)
    cmyk = io.BytesIO()
    Image.fromarray(pixels(1)).convert("CMYK").save(cmyk, "JPEG")
    named |= {"cat/turned.jpg": file.getvalue(), "cat/cmyk.JPG": cmyk.getvalue()}
    said = []
    assert load(write(tmp_path, named), said=said).shape == (16, 16, 3)
    text = "\n".join(said)
    assert "38 images, ignored 2 other files (" in text
    assert "turned upright as EXIF says: 1 image" in text
    assert "converted to RGB from CMYK and the like: 1 image" in text


def test_sizes_channels_and_depth_come_from_the_data(tmp_path):
    for name, make, shape, levels in (
        ("grey", lambda i: encoded(pixels(i, 6, 10, 1)), (6, 10, 1), 256),
        ("rgba", lambda i: encoded(pixels(i, 8, 8, 4)), (8, 8, 4), 256),
        (
            "deep",
            lambda i: encoded(pixels(i, 4, 4, 1).astype(np.uint16) * 257),
            (4, 4, 1),
            65536,
        ),
    ):
        write(tmp_path / name, {f"{i}.png": make(i) for i in range(20)})
        dataset = load(tmp_path / name)
        assert (dataset.shape, dataset.levels) == (shape, levels)
        assert (dataset.num_classes, dataset.class_names) == (None, ())
        batch = everything(dataset)
        assert batch["image"].shape == (len(dataset), *shape)
        assert -1 <= batch["image"].min() < -0.9 < 0.9 < batch["image"].max() <= 1
        assert not batch["label"].any()


def test_arrays_of_many_channels(tmp_path):
    (tmp_path / "x").mkdir()
    values = np.random.default_rng(0).random((20, 12, 12, 6)).astype(np.float32)
    for i, value in enumerate(values):
        np.save(tmp_path / "x" / f"{i}.npy", value)
    dataset = load(tmp_path / "x")
    assert (dataset.shape, dataset.levels) == ((12, 12, 6), 65536)
    image = everything(dataset)["image"][0]
    nearest = np.abs(values * 2 - 1 - image).max((1, 2, 3)).min()
    assert nearest < 1.1 / 65535 + 1e-6  # half a level, and float32
    assert load(tmp_path / "x", image_size=(8,)).shape == (8, 8, 6)


def test_mixed_channels_are_converted_when_asked(tmp_path):
    grey, colour = pixels(0, channels=1), pixels(1)
    files_of = {f"g{i}.png": encoded(grey) for i in range(10)}
    files_of |= {f"c{i}.png": encoded(colour) for i in range(10)}
    write(tmp_path, files_of)
    seen = {
        image.tobytes() for image in everything(load(tmp_path, channels=3))["image"]
    }
    repeated = np.repeat(grey[..., None], 3, axis=2)
    expected = [i / np.float32(127.5) - np.float32(1) for i in (repeated, colour)]
    assert seen == {image.tobytes() for image in expected}
    assert everything(load(tmp_path, channels=4))["image"][..., 3].min() == 1
    assert load(tmp_path, channels=1).shape == (16, 16, 1)


# ---- classes -------------------------------------------------------------------------


def test_prefixes_are_openais_classes(tmp_path):
    names = ("plane", "car", "bird")
    write(
        tmp_path,
        {
            f"sub{i % 2}/{name}_{i}_x.png": encoded(pixels(i))
            for i in range(9)
            for name in names
        },
    )
    assert load(tmp_path, labels="prefix").class_names == ("bird", "car", "plane")


def test_a_table_gives_the_classes(tmp_path):
    names = [f"{i}.png" for i in range(20)]
    write(tmp_path, {name: encoded(pixels(i)) for i, name in enumerate(names)})
    rows = [f"{name},{'b' if i % 2 else 'a'}" for i, name in enumerate(names)]
    (tmp_path / "labels.csv").write_text("\ufefffile,label\r\n" + "\r\n".join(rows))
    dataset = load(tmp_path)  # found in the root
    assert dataset.class_names == ("a", "b")
    pairs = everything(dataset)
    for image, label in zip(pairs["image"], pairs["label"], strict=True):
        (seed,) = [
            i for i in range(20) if (np.rint((image + 1) * 127.5) == pixels(i)).all()
        ]
        assert label == seed % 2
    elsewhere = tmp_path / "elsewhere.txt"
    elsewhere.write_text("\n".join(f"{n},{i % 12}" for i, n in enumerate(names)))
    numbers = refusal(tmp_path, labels=str(elsewhere))
    assert "found 12 classes for 20 images" in numbers
    elsewhere.write_text("\n".join(f"{n},{i % 10}" for i, n in enumerate(names)))
    numbered = load(tmp_path, labels=str(elsewhere))
    assert numbered.class_names == tuple("0123456789")


def test_numbers_are_sorted_as_numbers(tmp_path):
    write(
        tmp_path,
        {f"{k}/{i}.png": encoded(pixels(i)) for k in range(12) for i in range(3)},
    )
    assert load(tmp_path).class_names == tuple(str(k) for k in range(12))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["z.png,a"], "not in .*: 1 file \\(z.png\\)"),
        (["0.png,a"], "no label for 19 files \\(1.png"),
        (["0.png,a", "0.png,b"], "gives 0.png two labels, 'a' and 'b'"),
        (["0.png"], "line 1 of .* is '0.png': write file,label"),
        (
            [f"{i}.png,{[0, 1, 3][i % 3]}" for i in range(20)],
            "go up to 3 but leave out 2: number the classes",
        ),
    ],
)
def test_tables_that_do_not_fit_are_refused(tmp_path, rows, message):
    write(tmp_path, {f"{i}.png": encoded(pixels(i)) for i in range(20)})
    (tmp_path / "labels.csv").write_text("\n".join(rows))
    with pytest.raises(errors.Refusal, match=message):
        load(tmp_path)


# ---- crops, memory, threads ----------------------------------------------------------


def test_random_crops_are_the_same_after_a_resume_and_on_any_process(tmp_path):
    write(tmp_path, content(40, 56))
    options = {"image_size": (16,), "crop": "random"}

    def batches(first_step, count, **rows):
        dataset = load(tmp_path, **options)
        order = Order(len(dataset), 8, seed=3)
        with pipeline.batches(
            dataset, order, first_step=first_step, seed=5, flip=True, **rows
        ) as made:
            return [batch["image"] for _, batch in itertools.islice(made, count)]

    whole = batches(0, 6)
    np.testing.assert_array_equal(whole[4:], batches(4, 2))
    halves = [batches(2, 1, start=start, stop=start + 4)[0] for start in (0, 4)]
    np.testing.assert_array_equal(np.concatenate(halves), whole[2])
    # The same image is cut differently in another epoch, and evaluation is central.
    dataset = load(tmp_path, **options)
    draws = np.array([[0.1, 0.2, 0.3], [0.9, 0.9, 0.1]])
    one, other = dataset.fetch([0, 0], draws)["image"]
    assert (one != other).any()
    central = load(tmp_path, image_size=(16,))
    np.testing.assert_array_equal(
        everything(dataset)["image"], everything(central)["image"]
    )
    assert not load(tmp_path, "test", **options).random_crop


@pytest.mark.parametrize(("cache_gib", "decoded"), [(1.0, 1), (0.0, 3)])
def test_nothing_is_decoded_twice_where_memory_allows(
    tmp_path, monkeypatch, cache_gib, decoded
):
    write(tmp_path, content())
    calls = []
    decode = decoding.decode
    monkeypatch.setattr(
        decoding, "decode", lambda *args: calls.append(1) or decode(*args)
    )
    dataset = load(tmp_path, cache_gib=cache_gib)
    first = everything(dataset)["image"]
    kept = first.copy()
    first[:] = 7.0
    np.testing.assert_array_equal(everything(dataset)["image"], kept)
    np.testing.assert_array_equal(everything(dataset)["image"], kept)
    assert len(calls) == decoded * len(dataset)


def test_many_threads_read_the_same(tmp_path):
    write(tmp_path, content())
    dataset = load(zipped(tmp_path / "a.zip", content()), source="zip")
    expected = everything(load(tmp_path))["image"]
    results = [None] * 6

    def work(i):
        results[i] = everything(dataset)["image"]

    workers = [threading.Thread(target=work, args=(i,)) for i in range(6)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for result in results:
        np.testing.assert_array_equal(result, expected)


# ---- files that cannot be read -------------------------------------------------------


def many(count=210):
    return {f"{i:03}.png": encoded(pixels(i, 8, 8)) for i in range(count)}


def test_an_unreadable_image_is_named_once_and_replaced_by_the_next(tmp_path):
    write(tmp_path, many())
    plain = load(tmp_path)
    expected = everything(plain)["image"]
    names = [
        name
        for name in many()
        if int(hashlib.sha256(name.encode()).hexdigest()[:16], 16) / 2**64 >= 0.2
    ]
    for victim in (5, len(names) - 1):  # the one after the last is the first
        write(tmp_path, {names[victim]: many()[names[victim]][:-40]})
    said = []
    dataset = load(tmp_path, said=said)
    assert dataset.count_unreadable() == 0  # their headers are sound
    expected[5], expected[-1] = expected[6].copy(), expected[0].copy()
    for _ in range(2):
        np.testing.assert_array_equal(everything(dataset)["image"], expected)
    # By itself, in another order: the same.
    again = load(tmp_path).fetch([len(names) - 1, 5])["image"]
    np.testing.assert_array_equal(again, expected[[-1, 5]])
    assert dataset.count_unreadable() == 2
    named = [line for line in said if "skipped" in line]
    assert sorted(named) == sorted(set(named))
    assert [names[5] in line or names[-1] in line for line in named] == [True, True]


def test_text_named_png_is_left_out_from_the_start(tmp_path):
    write(tmp_path, {**many(), "100.png": "my notes"})
    said = []
    dataset = load(tmp_path, said=said)
    assert len(dataset) + len(load(tmp_path, "test")) == 209
    assert "skipped: 100.png is text, not an image" in said
    assert dataset.count_unreadable() == 1


def test_more_than_one_percent_is_refused_with_the_first_names(tmp_path):
    write(tmp_path, {**many(), **{f"{i:03}.png": "text" for i in range(3)}})
    message = refusal(tmp_path)
    assert message.startswith("3 of the 210 images of")
    assert "000.png is text" in message
    assert "--mode=data lists all" in message
    # Found while training: as late, and as clear.
    broken = {name: data[:-40] for name, data in list(many().items())[:40]}
    dataset = load(write(tmp_path / "other", {**many(), **broken}))
    with pytest.raises(errors.Refusal, match=r"images of .* damaged") as caught:
        everything(dataset)
    # Other threads may find more before the first refusal arrives.
    assert int(str(caught.value).partition(" ")[0]) >= 3


def test_a_split_without_a_readable_image_is_refused():
    def decode(index):
        raise decoding.Unreadable("is damaged")

    reader = reading.Reader(
        decode,
        names=["a", "b"],
        labels=np.zeros(2, np.int32),
        shape=(4, 4, 1),
        random_crop=False,
        alpha=False,
        cache_gib=0,
        faults=reading.Faults("photos", 1000, lambda line: None),
    )
    with pytest.raises(errors.Refusal, match="none of the 2 images of this split"):
        reader.read(np.array([1]))


# ---- refusals ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("named", "options", "parts"),
    [
        ({}, {}, ["holds no images (0 other files)", ".png", ".npy"]),
        ({"a.txt": "x"}, {}, ["holds no images (1 other files (1 .txt))"]),
        (
            {f"{i}/{i}.png": encoded(pixels(i)) for i in range(9)},
            {},
            ["found 9 classes for 9 images", "file names", "data.labels=none"],
        ),
        (
            {"train/a.png": encoded(pixels(0)), "test/b.png": encoded(pixels(0))},
            {},
            ["splits, not classes (test, train)", "/train", "data.labels=none"],
        ),
        (
            {**many(20), "x.png": encoded(pixels(0, 8, 8, 1))},
            {},
            [
                "20 with 3, such as 000.png, 1 with 1, such as x.png",
                "--config.data.channels=3",
            ],
        ),
        (
            {**many(20), "x.png": encoded(pixels(0, 30, 40))},
            {},
            ["2 sizes (20 of 8x8, 1 of 30x40)", "--config.data.image_size=8"],
        ),
        (
            {**many(20), "x.png": encoded(pixels(0, 1, 1))},
            {},
            ["20 of 8x8, 1 of 1x1", "remove tiny ones such as x.png (1x1)"],
        ),
        (
            {**many(20), "x.png": encoded(pixels(0, 40, 40))},
            {"image_size": (16,)},
            ["20 of 21", "smaller than data.image_size 16x16", "000.png is 8x8"],
        ),
        (
            many(20),
            {"image_size": (4, 8), "crop": "none"},
            ["20 of 8x8, not all 4x8", "--config.data.crop=center"],
        ),
        (many(20), {"labels": "folders"}, ["20 files (000.png", "in no sub-folder"]),
        (many(20), {"labels": "prefix"}, ["20 files (000.png", "without underscore"]),
        (many(20), {"labels": "x.csv"}, ["'x.csv'", "prefix", "CSV file that exists"]),
        (many(20), {"channels": 5}, ["data.channels=5: 20 images", "have 3 channels"]),
        (many(2), {"test_fraction": 1e-9}, ["leaves 2 training and 0 test images"]),
        (
            {**many(20), "x.png": encoded(pixels(0, 8, 8, 1).astype(np.uint16))},
            {"channels": 3},
            ["20 images of 8 bits and 1 of 16"],
        ),
        (
            many(20),
            {"crop": "random", "image_size": (1, 2, 3)},
            ["(1, 2, 3)", "(side,)"],
        ),
        (many(20), {"crop": "top"}, ["data.crop 'top'", "none, center, random"]),
        (many(20), {"source": "zip"}, ["is a folder", "data.name to folder"]),
    ],
)
def test_refusals(tmp_path, named, options, parts):
    message = refusal(write(tmp_path, named), **options)
    for part in parts:
        assert part in message


def test_a_missing_path_is_refused(tmp_path):
    assert f"'{tmp_path}/nowhere' does not exist" in refusal(tmp_path / "nowhere")
    assert "data.path is empty" in refusal(None)
    file = tmp_path / "a.zip"
    file.write_bytes(b"")
    assert "set data.name to zip or npz" in refusal(file)


@pytest.mark.parametrize("beside", ["metrics.jsonl", "checkpoints/1/a"])
def test_the_directories_of_runs_are_passed_over_and_it_is_said(tmp_path, beside):
    before = load(write(tmp_path, content())).fingerprint()
    run = {
        "runs/a/config.json": '{"config": {}, "data": {}}',
        f"runs/a/{beside}": "",
        "runs/a/samples/step_1.png": encoded(pixels(0)),
    }
    said = []
    after = load(write(tmp_path, run), said=said)
    assert after.fingerprint() == before
    assert after.class_names == CLASSES
    files.open_images(tmp_path / "runs/a/samples")  # asked for by name
    with pytest.raises(errors.Refusal, match=r"no images .*the directory of a run"):
        files.open_images(tmp_path / "runs")
    write(tmp_path, {"x.png": encoded(pixels(0))})
    load(tmp_path, said=said, labels="none")
    assert "directory of a run (runs/a)" in said[-1]


@pytest.mark.parametrize(
    "named",
    [
        {"config.json": '{"config": {}, "data": {}}'},
        {"config.json": '{"model_type": "x"}', "metrics.jsonl": ""},
        {"config.json": "[", "metrics.jsonl": ""},
        {"metrics.jsonl": "", "checkpoints/a": ""},
    ],
)
def test_folders_that_only_look_like_runs_are_read(tmp_path, named):
    write(tmp_path, content())
    write(tmp_path / "cat", named)
    assert len(files.open_images(tmp_path)) == len(CLASSES) * PER_CLASS


def test_links_in_a_circle_end(tmp_path):
    write(tmp_path, content())
    (tmp_path / "cat" / "all").symlink_to(tmp_path, target_is_directory=True)
    assert len(files.open_images(tmp_path)) == len(CLASSES) * PER_CLASS
