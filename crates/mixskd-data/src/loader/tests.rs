use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::augment::{Augment, Canvas, Cutout, Flip, PadCrop};
use crate::{Image, ImageView, PackedSamples, Preset};

fn samples(n: usize) -> Arc<dyn Samples> {
    let pixels = (0..n * 8 * 8 * 3).map(|i| (i * 31 % 256) as u8).collect();
    let labels = (0..n as u32).map(|i| i % 3).collect();
    Arc::new(PackedSamples::new((8, 8, 3), pixels, labels, "memory").unwrap())
}

fn pipeline() -> Pipeline {
    Pipeline::new(Preset::Cifar.train(8, (8, 8), true), &[0.5; 3], &[0.25; 3]).unwrap()
}

fn config(batch: usize, prefetch: usize) -> LoaderConfig {
    LoaderConfig {
        batch,
        prefetch,
        seed: 5,
        ..LoaderConfig::default()
    }
}

type Plain = (Vec<f32>, Vec<u32>, Vec<u32>, u64, u64);

fn plain(batch: Batch) -> Plain {
    let images = batch.images.flatten_all().unwrap().to_vec1().unwrap();
    (images, batch.labels, batch.indices, batch.epoch, batch.step)
}

fn all(loader: &Loader, epoch: u64) -> Vec<Plain> {
    loader
        .epoch(epoch)
        .map(|batch| plain(batch.unwrap()))
        .collect()
}

#[test]
fn batches_do_not_depend_on_threads_prefetch_or_entry() {
    let expected = all(
        &Loader::new(samples(50), pipeline(), config(8, 0)).unwrap(),
        3,
    );
    assert_eq!(expected.len(), 6);
    for threads in [1, 2, 5] {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        for prefetch in [0, 1, 4] {
            let loader = Loader::new(samples(50), pipeline(), config(8, prefetch)).unwrap();
            assert_eq!(
                pool.install(|| all(&loader, 3)),
                expected,
                "{threads} threads, prefetch {prefetch}"
            );
            let rest: Vec<Plain> = loader
                .epoch_from(3, 4)
                .map(|batch| plain(batch.unwrap()))
                .collect();
            assert_eq!(rest, expected[4..]);
        }
    }
}

#[test]
fn an_epoch_shows_every_image_once_and_the_next_another_order() {
    let loader = Loader::new(
        samples(50),
        pipeline(),
        LoaderConfig {
            drop_last: false,
            ..config(8, 2)
        },
    )
    .unwrap();
    let order = |epoch| {
        all(&loader, epoch)
            .into_iter()
            .flat_map(|batch| batch.2)
            .collect::<Vec<_>>()
    };
    let (first, second) = (order(0), order(1));
    assert_ne!(first, second);
    for mut order in [first, second] {
        order.sort_unstable();
        assert_eq!(order, (0..50).collect::<Vec<_>>());
    }
    assert_eq!(loader.steps_per_epoch(), 7);
}

#[test]
fn a_balanced_epoch_shows_small_classes_again_and_augmented_otherwise() {
    // 44 of one class, 4 of another.
    let pixels = (0..48 * 8 * 8 * 3).map(|i| (i * 31 % 251) as u8).collect();
    let labels = (0..48u32).map(|i| u32::from(i % 12 == 0)).collect();
    let samples = Arc::new(PackedSamples::new((8, 8, 3), pixels, labels, "memory").unwrap());
    let loader = |prefetch, needs, shard| {
        let config = LoaderConfig {
            balance: Balance {
                strength: 1.0,
                after: 0,
            },
            needs,
            shard,
            ..config(6, prefetch)
        };
        Loader::new(samples.clone(), pipeline(), config).unwrap()
    };
    let alone = loader(0, BatchNeeds::Anchors, Shard::default());
    assert_eq!(alone.steps_per_epoch(), 8);
    let first = all(&alone, 0);
    let labels: Vec<u32> = first.iter().flat_map(|batch| batch.1.clone()).collect();
    assert_eq!(labels.iter().filter(|label| **label == 1).count(), 24);
    // Of an image that comes several times, nearly every time another picture: the crop has nine places, twice with the flip.
    let mut seen: BTreeMap<u32, Vec<Vec<u32>>> = BTreeMap::new();
    for (images, _, indices, ..) in &first {
        let each = images.len() / indices.len();
        for (index, image) in indices.iter().zip(images.chunks(each)) {
            let bits = image.iter().map(|value| value.to_bits()).collect();
            seen.entry(*index).or_default().push(bits);
        }
    }
    let (mut shown, mut kinds) = (0, 0);
    for mut pictures in seen.into_values().filter(|pictures| pictures.len() > 1) {
        shown += pictures.len();
        pictures.sort_unstable();
        pictures.dedup();
        kinds += pictures.len();
    }
    assert!(shown == 24 && kinds > 14, "{kinds} of {shown}");
    // The same whoever builds it, from wherever, with whomever.
    assert_eq!(
        all(&loader(3, BatchNeeds::Anchors, Shard::default()), 0),
        first
    );
    let rest = alone.epoch_from(0, 5).map(|batch| plain(batch.unwrap()));
    assert_eq!(rest.collect::<Vec<_>>(), first[5..]);
    let second = loader(0, BatchNeeds::Anchors, Shard { rank: 1, world: 2 });
    let expected: Vec<_> = first.iter().skip(1).step_by(2).cloned().collect();
    assert_eq!(all(&second, 0), expected);
    // Companions are drawn anew for each.
    let pairs = all(&loader(0, BatchNeeds::SameClass(1), Shard::default()), 0);
    let mut partners = BTreeSet::new();
    for (_, _, indices, ..) in &pairs {
        let (anchors, others) = indices.split_at(6);
        partners.extend((anchors.iter().zip(others)).filter(|(anchor, _)| **anchor == 12));
    }
    assert!(partners.len() > 1, "{partners:?}");
}

#[test]
fn shards_are_the_batches_of_one_process_dealt_out_in_turn() {
    let whole = all(
        &Loader::new(samples(50), pipeline(), config(6, 2)).unwrap(),
        4,
    );
    assert_eq!(whole.len(), 8);
    let of = |rank, world, drop_last| {
        let config = LoaderConfig {
            shard: Shard { rank, world },
            drop_last,
            ..config(6, 2)
        };
        Loader::new(samples(50), pipeline(), config).unwrap()
    };
    for world in [1, 2, 3, 8] {
        for rank in 0..world {
            let shard = of(rank, world, true);
            let expected: Vec<_> = (0..8 / world)
                .map(|step| whole[step * world + rank].clone())
                .collect();
            assert_eq!(shard.steps_per_epoch(), expected.len());
            assert_eq!(all(&shard, 4), expected, "rank {rank} of {world}");
            let rest = shard.epoch_from(4, 1).map(|batch| plain(batch.unwrap()));
            assert_eq!(rest.collect::<Vec<_>>(), expected[1..]);
        }
    }
    // Where nothing is left out, every image is shown once among all of them.
    let mut shown: Vec<u32> = (0..4)
        .flat_map(|rank| all(&of(rank, 4, false), 4))
        .flat_map(|batch| batch.2)
        .collect();
    shown.sort_unstable();
    assert_eq!(shown, (0..50).collect::<Vec<_>>());
    let refused = |rank, world| {
        let config = LoaderConfig {
            shard: Shard { rank, world },
            ..config(6, 0)
        };
        let loader = Loader::new(samples(50), pipeline(), config);
        loader.err().unwrap().to_string()
    };
    assert!(refused(0, 9).contains("6 for each of 9 processes is more than the set of 50"));
    assert!(refused(2, 2).contains("no rank 2 among 2 processes"));
}

#[test]
fn labels_belong_to_their_images() {
    let loader = Loader::new(samples(20), pipeline(), config(4, 1)).unwrap();
    for (_, labels, indices, ..) in all(&loader, 0) {
        assert!(
            labels
                .iter()
                .zip(&indices)
                .all(|(label, index)| *label == index % 3)
        );
    }
}

#[test]
fn the_same_image_is_augmented_anew_each_epoch() {
    let loader = Loader::new(samples(1), pipeline(), config(1, 0)).unwrap();
    let images: Vec<_> = (0..20)
        .map(|epoch| all(&loader, epoch)[0].0.clone())
        .collect();
    assert!(images.iter().any(|image| *image != images[0]));
}

#[test]
fn a_batch_must_fit_the_set() {
    let new = |config| {
        Loader::new(samples(10), pipeline(), config)
            .err()
            .map(|error| error.to_string())
    };
    let refused = new(config(11, 1)).unwrap();
    assert!(
        refused.contains("batch: 11 is larger than the set of 10 images\nhint:"),
        "{refused}"
    );
    assert!(
        new(config(0, 1))
            .unwrap()
            .contains("batch: must be at least 1")
    );
    // Evaluation takes what there is.
    assert!(
        new(LoaderConfig {
            shuffle: false,
            drop_last: false,
            ..config(11, 1)
        })
        .is_none()
    );
}

/// Images of which some cannot be read; counts how many were asked for.
struct Faulty {
    asked: AtomicUsize,
}

impl Samples for Faulty {
    fn len(&self) -> usize {
        1_000_000
    }

    fn label(&self, _index: usize) -> u32 {
        0
    }

    fn image(&self, index: usize) -> Result<Image> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        if index >= 24 {
            return Err(Error::unreadable(self.origin(index), "is damaged"));
        }
        Ok(ImageView {
            height: 8,
            width: 8,
            channels: 3,
            pixels: &[7; 192],
        }
        .to_image())
    }

    fn origin(&self, index: usize) -> String {
        format!("cats/{index}.png")
    }
}

#[test]
fn a_corrupt_image_is_an_item_that_names_it_and_ends_the_epoch() {
    for prefetch in [0, 3] {
        let samples = Arc::new(Faulty {
            asked: AtomicUsize::new(0),
        });
        let config = LoaderConfig {
            shuffle: false,
            ..config(10, prefetch)
        };
        let items: Vec<_> = Loader::new(samples, pipeline(), config)
            .unwrap()
            .epoch(0)
            .collect();
        assert_eq!(items.len(), 3);
        let error = items[2].as_ref().unwrap_err().to_string();
        assert!(error.starts_with("cats/24.png: is damaged"), "{error}");
        assert!(error.contains("--skip-unreadable"), "{error}");
    }
}

#[test]
fn prefetch_is_bounded_and_dropping_stops_it() {
    let samples = Arc::new(Faulty {
        asked: AtomicUsize::new(0),
    });
    let config = LoaderConfig {
        shuffle: false,
        ..config(2, 3)
    };
    let loader = Loader::new(samples.clone(), pipeline(), config).unwrap();
    let mut epoch = loader.epoch(0);
    epoch.next().unwrap().unwrap();
    drop(epoch);
    // The first image for its size; one batch taken, three ahead, and one more under way when the place became free.
    assert!(samples.asked.load(Ordering::Relaxed) <= 1 + 2 * (1 + 3 + 1));
    assert_eq!(
        Arc::strong_count(&samples),
        2,
        "the thread is gone: only the loader and this test are left"
    );
}

#[test]
fn a_worker_of_the_pool_may_iterate() {
    // The global pool builds the batches, and one of its workers waits for them.
    let loader = Loader::new(samples(50), pipeline(), config(8, 2)).unwrap();
    let (sender, receiver) = std::sync::mpsc::channel();
    rayon::spawn(move || sender.send(all(&loader, 0).len()).unwrap());
    assert_eq!(receiver.recv().unwrap(), 6);
}

/// Reads an image.
type Read = fn() -> Result<Image>;

/// Four images of 8×8 pixels, but for the last.
struct Odd(Read);

fn image(side: usize, bytes: usize) -> Image {
    Image {
        height: side,
        width: 8,
        channels: 3,
        pixels: vec![0; bytes],
    }
}

impl Samples for Odd {
    fn len(&self) -> usize {
        4
    }

    fn label(&self, _index: usize) -> u32 {
        u32::MAX
    }

    fn image(&self, index: usize) -> Result<Image> {
        if index == 3 {
            return self.0();
        }
        Ok(image(8, 192))
    }

    fn origin(&self, index: usize) -> String {
        format!("{index}.png")
    }
}

/// Refuses black pixels, as if a file of its own could not be read.
#[derive(Debug)]
struct Reads;

impl Augment for Reads {
    fn apply(&self, _canvas: &mut Canvas<'_>, _rng: &mut rand_chacha::ChaCha8Rng) -> Result<()> {
        let refused = std::io::Error::other("disk on fire");
        Err(Error::io(Path::new("table.bin"), "read")(refused))
    }
}

#[test]
fn images_that_do_not_fit_are_named() {
    let first = |samples: Odd, pipeline: Pipeline, prefetch: usize| {
        let config = LoaderConfig {
            needs: BatchNeeds::SameClass(1),
            ..config(4, prefetch)
        };
        let loader = Loader::new(Arc::new(samples), pipeline, config).unwrap();
        let first = loader.epoch(0).next().unwrap();
        first.unwrap_err()
    };
    let odd: [(Read, &str); 4] = [
        (
            || Ok(image(9, 216)),
            "3.png: is 9×8 after augmentation where 8×8 is wanted\nhint: images of different",
        ),
        (
            || Ok(image(8, 256)),
            "3.png: is given as 256 bytes for 8×8 pixels of 3 channels\nhint: whoever reads it",
        ),
        (|| Ok(image(0, 0)), "3.png: is given as 0 bytes for 0×8"),
        (
            || panic!("out of range"),
            "3.png: reading or augmenting it panicked: out of range",
        ),
    ];
    for (make, wanted) in odd {
        for prefetch in [0, 2] {
            let error = first(Odd(make), pipeline(), prefetch).to_string();
            assert!(error.starts_with(wanted), "{error}");
        }
    }
    // What an augmentation says is kept, as an error of the first image.
    let reads = Pipeline::new(vec![Arc::new(Reads)], &[0.5; 3], &[0.25; 3]).unwrap();
    let error = first(Odd(|| Ok(image(8, 192))), reads, 2);
    let text = error.to_string();
    assert!(
        text.contains(".png: table.bin: cannot read: disk on fire"),
        "{text}"
    );
    let source = std::error::Error::source(&error).unwrap();
    let source = source.downcast_ref::<Box<Error>>().unwrap();
    assert!(matches!(**source, Error::Io { .. }));

    for needs in [
        BatchNeeds::Views(usize::MAX),
        BatchNeeds::SameClass(usize::MAX),
    ] {
        let config = LoaderConfig {
            needs,
            ..config(4, 0)
        };
        let loader = Loader::new(Arc::new(Odd(|| Ok(image(8, 192)))), pipeline(), config);
        assert!(loader.err().unwrap().to_string().starts_with("needs: "));
    }
    let empty = Pipeline::new(vec![], &[0.5; 3], &[0.25; 3]).unwrap();
    let picture = image(8, 100);
    let error = empty.tensor(&picture).unwrap_err().to_string();
    assert!(
        error.starts_with("an image: is given as 100 bytes"),
        "{error}"
    );
}

#[test]
fn companions_come_on_top_and_leave_the_anchors_as_they_were() {
    let load = |needs, batch| {
        let config = LoaderConfig {
            needs,
            ..config(batch, 2)
        };
        all(&Loader::new(samples(50), pipeline(), config).unwrap(), 1)
    };
    let each = 8 * 8 * 3;
    let alone = load(BatchNeeds::Anchors, 8);
    let (views, class) = (
        load(BatchNeeds::Views(2), 8),
        load(BatchNeeds::SameClass(3), 8),
    );
    assert_eq!((alone.len(), views.len(), class.len()), (6, 6, 6));
    for ((alone, views), class) in alone.iter().zip(&views).zip(&class) {
        for (more, blocks) in [(views, 2), (class, 4)] {
            assert_eq!(more.0.len(), blocks * 8 * each);
            assert_eq!(more.0[..8 * each], alone.0);
            assert_eq!(more.1, alone.1.repeat(blocks));
            assert_eq!(more.2[..8], alone.2);
        }
        assert_eq!(views.2, alone.2.repeat(2));
        assert_ne!(
            views.0[8 * each..],
            alone.0,
            "both views are augmented alike"
        );
        assert!(
            class.2[8..]
                .iter()
                .zip(alone.2.repeat(3))
                .all(|(a, b)| *a != b)
        );
    }
}

#[test]
fn windows_say_what_batches_show() {
    let (height, width, channels) = (9, 7, 3);
    let pixels: Vec<u8> = (0..20 * height * width * channels)
        .map(|i| (i * 31 % 255) as u8 + 1)
        .collect();
    let labels = (0..20).map(|i| i % 4).collect();
    let samples =
        PackedSamples::new((height, width, channels), pixels.clone(), labels, "set").unwrap();
    let ops: Vec<Arc<dyn Augment>> =
        vec![Arc::new(PadCrop { padding: 3 }), Arc::new(Flip::default())];
    let pipeline = Pipeline::new(ops, &[0.0; 3], &[1.0 / 255.0; 3]).unwrap();
    for (needs, balanced) in [
        (BatchNeeds::Anchors, false),
        (BatchNeeds::Anchors, true),
        (BatchNeeds::Views(2), false),
        (BatchNeeds::SameClass(1), true),
    ] {
        let config = LoaderConfig {
            batch: 4,
            needs,
            balance: Balance {
                strength: f64::from(u8::from(balanced)),
                after: 2,
            },
            seed: 3,
            ..LoaderConfig::default()
        };
        let loader = Loader::new(Arc::new(samples.clone()), pipeline.clone(), config).unwrap();
        assert!(loader.windowed().is_some());
        let batches = loader.epoch_from(2, 1).map(Result::unwrap);
        let windows = loader.windows_from(2, 1).map(Result::unwrap);
        let mut outside = 0;
        let pairs: Vec<_> = batches.zip(windows).collect();
        assert_eq!(pairs.len(), 4);
        for (batch, said) in pairs {
            assert_eq!(
                (batch.step, &batch.labels, &batch.indices),
                (said.step, &said.labels, &said.indices)
            );
            let values = batch
                .images
                .flatten_all()
                .unwrap()
                .to_vec1::<f32>()
                .unwrap();
            let mut expected = Vec::new();
            for (window, &index) in said.windows.iter().zip(&said.indices) {
                for y in 0..height as i32 {
                    for x in 0..width as i32 {
                        let x = if window.flipped {
                            width as i32 - 1 - x
                        } else {
                            x
                        };
                        let (y, x) = (y + window.top, x + window.left);
                        let inside =
                            (0..height as i32).contains(&y) && (0..width as i32).contains(&x);
                        outside += usize::from(!inside);
                        for c in 0..channels {
                            let at = |y: i32, x: i32| {
                                let pixel =
                                    (index as usize * height + y as usize) * width + x as usize;
                                f32::from(pixels[pixel * channels + c])
                            };
                            expected.push(if inside { at(y, x) } else { 0.0 });
                        }
                    }
                }
            }
            let far = values
                .iter()
                .zip(&expected)
                .map(|(a, b)| (a - b).abs())
                .max_by(f32::total_cmp)
                .unwrap();
            assert!(far < 1e-3, "{needs:?}: {far}");
        }
        assert!(outside > 0);
    }
    // What changes pixels cannot be said by windows, nor can a crop of a crop.
    let crop = || -> Arc<dyn Augment> { Arc::new(PadCrop { padding: 4 }) };
    let twice = vec![crop(), Arc::new(Flip::default()), crop()];
    for ops in [vec![Arc::new(Cutout::default()) as _], twice] {
        let pipeline = Pipeline::new(ops, &[0.0; 3], &[1.0; 3]).unwrap();
        let config = LoaderConfig {
            batch: 4,
            ..LoaderConfig::default()
        };
        let loader = Loader::new(Arc::new(samples.clone()), pipeline, config).unwrap();
        assert!(loader.windowed().is_none());
        assert!(loader.epoch(0).all(|batch| batch.is_ok()));
    }
}
