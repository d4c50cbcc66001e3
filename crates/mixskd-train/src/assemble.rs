//! A trainer of its parts.

use std::sync::{Arc, OnceLock};

use candle_core::DType;
use mixskd_data::{Balance, BatchNeeds, Dataset, Loader, LoaderConfig, Shard, recipe};
use mixskd_models::{ModelConfig, ParamStore};

use crate::builder::{Maker, TrainerBuilder};
use crate::config::OnNan;
use crate::distribution::Group;
use crate::feed::Feed;
use crate::gpu_step::{GpuStepper, Launching};
use crate::init;
use crate::learner::Learner;
use crate::method::{Method, MethodInputs};
use crate::optimizer::Sgd;
use crate::progress::Progress;
use crate::state::not_balanced;
use crate::to_host::ToHost;
use crate::trainer::{Trainer, at_most};
use crate::updater::Updater;
use crate::{Control, Error, Place, Result, TrainConfig};

impl Trainer {
    pub(crate) fn assemble(
        mut config: TrainConfig,
        place: Place,
        parts: TrainerBuilder,
    ) -> Result<Self> {
        let dataset = match parts.dataset {
            Some(dataset) => dataset.checked()?,
            None => config.data.open()?,
        };
        resolve(&mut config, &dataset, &place)?;
        let (device, notice) = config.run.device.open_at(place.local_rank)?;
        let mut device_notices: Vec<_> = notice.into_iter().collect();
        config.run.precision.apply(&device)?;
        mixskd_kernels::set_cudnn_benchmark(&device, config.run.cudnn_benchmark)?;
        let model = model_of(&config, &dataset);
        let store = ParamStore::new(config.run.seed, DType::F32, &device);
        // Before the method is built, so that it finds what the file holds and may still change it.
        let start = config.init.load(&store, &model);
        let maker = Maker::new(&config, parts.method)?;
        let needs = maker.needs(&config)?;
        let method = maker.build(&MethodInputs {
            config: &config.method,
            objective: &config.objective,
            model: &model,
            store: &store,
            seed: config.run.seed,
            epochs: config.run.epochs,
            train_images: dataset.train.len(),
            freeze_backbone: config.init.freeze_backbone,
        })?;
        let remembered = method.state()?;
        if place.world > 1 && config.data.balance > 0.0 && !remembered.is_empty() {
            return Err(not_balanced(config.method_name()));
        }
        let odd = remembered
            .iter()
            .find(|(_, tensor)| tensor.dtype() != DType::F32);
        if let Some((name, tensor)) = odd {
            return Err(Error::config(
                "method",
                format!(
                    "what it remembers, `{name}`, is {}: checkpoints hold float32",
                    tensor.dtype().as_str()
                ),
            ));
        }
        drop(remembered);
        let optimizer = optimizer_of(&config, &store, method.as_ref())?;
        let [train_loader, test_loader] = loaders(&config, &dataset, &place, needs)?;
        let schedule = config.schedule.build(
            config.optimizer.lr,
            config.run.epochs,
            at_most(train_loader.steps_per_epoch(), config.run.max_batches),
        )?;
        let precision = config.run.precision;
        let mut feed = |loader| {
            let (feed, notice) = Feed::new(loader, &dataset, &device, precision);
            device_notices.extend(notice);
            feed
        };
        let (train_feed, test_feed) = (feed(train_loader), feed(test_loader));
        let updater = Updater::new(&config.optimizer, optimizer);
        // Where the host looks at gradients on their way, nothing is captured.
        let launching = if updater.is_direct() && place.world == 1 {
            config.run.launching()
        } else {
            Launching::Kernels
        };
        let gpu = GpuStepper::new(&device, launching)?;
        let may_skip = config.run.on_nan == OnNan::Skip;
        let learner = Learner::new(store, method, updater, gpu, device.clone(), may_skip);
        let start_sha256 = match &start {
            Ok(Some(start)) => Some(start.sha256.clone()),
            _ => None,
        };
        Ok(Self {
            config,
            dataset,
            model,
            learner,
            schedule,
            train_feed: Arc::new(train_feed),
            test_feed,
            logits_to_host: ToHost::new(&device)?,
            to_host: ToHost::new(&device)?,
            device,
            device_notices,
            progress: Progress::default(),
            control: Control::default(),
            group: Group::apart(place),
            start,
            start_sha256,
            kept: false,
            directory: None,
            identity: OnceLock::new(),
        })
    }
}

/// Settles what was left to the data and the launcher.
///
/// # Errors
/// When there are fewer images than a batch wants.
fn resolve(config: &mut TrainConfig, dataset: &Dataset, place: &Place) -> Result<()> {
    if config.distribution.enabled {
        config.distribution.processes = place.world;
    }
    // So that the resolved configuration means the same set from any working directory.
    if config.own.data.is_none()
        && recipe(&config.data.source).is_none()
        && let Ok(folder) = dunce::canonicalize(&config.data.source)
        && folder.is_dir()
    {
        config.data.source = folder.display().to_string();
    }
    if let Some(weights) = &mut config.init.weights
        && let Ok(absolute) = dunce::canonicalize(&*weights)
    {
        *weights = absolute;
    }
    let images = dataset.train.len();
    if config.run.batch.saturating_mul(place.world) > images {
        let each = match place.world {
            1 => String::new(),
            world => format!(" for each of {world} processes"),
        };
        return Err(Error::Config {
            place: "run.batch".into(),
            message: format!(
                "a batch of {}{each} is larger than the training set of {images}",
                config.run.batch
            ),
            hint: Some(format!("--batch {}", (images / place.world).clamp(1, 64))),
        });
    }
    if config.run.image_size == 0 {
        config.run.image_size = dataset.input_size();
    }
    config.model.settle(config.run.image_size);
    Ok(())
}

/// The network that a resolved configuration asks for.
fn model_of(config: &TrainConfig, dataset: &Dataset) -> ModelConfig {
    ModelConfig {
        name: config.model.name.clone(),
        classes: dataset.classes.len(),
        channels: dataset.channels,
        width: config.model.width,
        input: config.run.image_size,
        stem_relu: config.model.stem_relu,
    }
}

/// The optimiser of all parameters that are trained, heads at a rate of their own where that is asked for.
fn optimizer_of(config: &TrainConfig, store: &ParamStore, method: &dyn Method) -> Result<Sgd> {
    let body = init::body(store, method.backbone());
    if config.init.freeze_backbone {
        for name in &body {
            store.freeze(name);
        }
    }
    let is_body = |name: &str| {
        let found = body.binary_search_by(|known| known.as_str().cmp(name));
        found.is_ok()
    };
    let factor = |name: &str| {
        if is_body(name) {
            1.0
        } else {
            config.init.head_lr_factor
        }
    };
    config.optimizer.build_with(store.parameters(), factor)
}

/// The loaders of training and of evaluation.
fn loaders(
    config: &TrainConfig,
    dataset: &Dataset,
    place: &Place,
    needs: BatchNeeds,
) -> Result<[Loader; 2]> {
    let train = LoaderConfig {
        batch: config.run.batch,
        needs,
        shuffle: true,
        balance: config.data.balance(),
        drop_last: true,
        seed: config.run.seed,
        prefetch: config.run.prefetch,
        shard: Shard {
            rank: place.rank,
            world: place.world,
        },
    };
    let test = LoaderConfig {
        batch: config.run.eval_batch.min(dataset.test.len()),
        needs: BatchNeeds::Anchors,
        shuffle: false,
        balance: Balance::default(),
        drop_last: false,
        shard: Shard::default(),
        ..train.clone()
    };
    let size = config.run.image_size;
    let (augmented, plain) = (dataset.train_pipeline(size)?, dataset.eval_pipeline(size)?);
    Ok([
        Loader::new(dataset.train.clone(), augmented, train)?,
        Loader::new(dataset.test.clone(), plain, test)?,
    ])
}
