"""The schema of a run: every field once, with its meaning, unit and source.

A file in `configs/` starts from `base()` and changes what its experiment changes. Rooms
below `builders` are given values, not configs.
"""

from ml_collections import config_dict


def base() -> config_dict.ConfigDict:  # noqa: PLR0915 - one statement a field
    """Return the configuration that every experiment is a small difference of."""
    config = config_dict.ConfigDict()
    config.seed = 0  # 0 … 2³²−1; decides weights, data order and every draw

    config.data = data = config_dict.ConfigDict()
    data.name = "digits"  # a key of data.sources.SOURCES, or tfds:<name>
    data.path = ""  # where a data set lies on disk; "" for its usual place
    data.image_size = ()  # (side,) or (height, width); () for the data's own
    data.channels = 0  # 0 for the data's own
    data.labels = "auto"  # of folder, zip: folders, prefix, none, or a CSV file's path
    data.captions = "auto"  # files, none, a table's path, classes, "a {class}", …
    data.low_res_factor = 0  # of upsamplers: sides of an image over those they enlarge
    data.tokenizer = "words"  # of captions: words, bytes, gpt2; see model.text_layers
    data.vocabulary = ""  # gpt2, clip: folder of its files; "": the installed ones
    data.test_fraction = 0.2  # of sources that come without a test split
    data.flip = False  # mirror images left-right with probability ½ in training
    data.crop = "center"  # how images are cut to size: none, center, random (ADM)
    data.cache_gib = (
        4.0  # memory for decoded images; what does not fit is decoded again
    )

    config.model = model = config_dict.ConfigDict()
    model.channels = 128  # width at full resolution
    model.channel_mult = (1, 2, 2, 2)  # width of each level; one downsampling between
    model.num_res_blocks = 2  # of each level
    model.attention_resolutions = (16,)  # shorter sides of maps with self-attention
    model.num_heads = 4  # attention heads, where head_channels is 0
    model.head_channels = 0  # channels of a head; 0 uses num_heads instead
    model.norm_groups = 32  # of GroupNorm
    model.scale_shift = True  # AdaGN; False adds the time embedding (DDPM)
    model.resblock_updown = False  # resample inside residual blocks (ADM)
    model.kind = "unet"  # or upsampler, classifier, clip (imported alone)
    # … or gaussian_2015, binomial_2015: of nonequilibrium thermodynamics
    model.low_res_noise = False  # an upsampler is given the level of noise
    model.network = "mlp"  # of the kinds of 2015: rbf, mlp, multiscale
    model.hidden_layers = 3  # of mlp, and of multiscale's convolutions
    model.readouts = 0  # of the time in rbf, mlp, multiscale; 0 for one a step
    model.scales = 1  # of multiscale: maps halved 0 … scales−1 times
    model.dense_channels = 0  # of multiscale's dense pathway, for a pixel; 0 for none
    model.mean_form = "convex"  # of gaussian_2015: the paper's; residual: its code's
    model.guides = ""  # of a classifier: the run whose process and data it shares
    model.sinusoid = "cos_sin"  # order of the time embedding; sin_cos: DDPM
    model.sinusoid_shift = 0  # frequencies 10000^(−i/(half−shift)); 1: DDPM
    model.norm_epsilon = 1e-5  # of GroupNorm; 1e-6: DDPM
    model.downsample_padding = "both"  # of strided convolutions; end: DDPM
    model.resample = "conv"  # resampling blocks: conv, or pool (no parameters)
    model.qkv_order = "legacy"  # packing of attention; new: ADM 64x64, DDPM
    model.attention_scale = "split"  # d^-1/4 on q and k; product: d^-1/2 on q·k (DDPM)
    model.attention_positions = False  # attention is told where a pixel is
    model.middle_attention = "normed"  # plain (no GroupNorm), none: some of diffusers
    model.initialisation = "openai"  # of the weights: openai, ddpm, torch
    model.pool = "attention"  # of a classifier: adaptive, spatial, spatial_v2
    model.inpainting = False  # sees known pixels and their mask, as GLIDE's networks do
    model.patch_size = 4  # of a clip: side of the patches that it reads
    model.image_layers = 12  # of a clip: blocks of the transformer over patches
    model.embedding = 512  # of a clip: channels in which images and texts end
    model.text_layers = 0  # of the text encoder (GLIDE: 16); 0: reads no text
    model.text_width = 512  # channels of a position of the text
    model.text_heads = 8  # attention heads of the text encoder
    model.text_relative = False  # attention of the text is told distances of words
    model.text_context = 0  # positions of a text (GLIDE: 128); 0: the tokenizer's
    model.text_vocabulary = 0  # number of tokens; 0: the tokenizer's
    model.dropout = 0.0  # of activations inside residual blocks
    model.class_conditional = False  # learn an embedding of the labels
    model.dtype = "float32"  # of the computation: float32 or bfloat16
    model.remat = "none"  # what the backward pass recomputes: blocks, attention, dots

    config.diffusion = diffusion = config_dict.ConfigDict()
    diffusion.schedule = "linear"  # a key of diffusion.schedules.SCHEDULES, or custom
    diffusion.num_steps = 1000  # T
    diffusion.beta_start = 1e-4  # DDPM section 4
    diffusion.beta_end = 0.02  # DDPM section 4
    diffusion.betas = ()  # with schedule "custom": T values …
    diffusion.betas_path = ""  # … or a .npy file of them, read once into betas
    diffusion.zero_terminal_snr = False  # Lin et al. 2023
    diffusion.log_var_floor = "next"  # or "1e-20"; see process.Schedule
    diffusion.rescale_timesteps = False  # the network sees t·1000/T (Improved DDPM)
    diffusion.prediction = "noise"  # noise, x_0, x_prev or v
    diffusion.variance = "fixed_large"  # fixed_small, learned, learned_range
    diffusion.loss = "simple"  # kl, rescaled_kl, hybrid, rescaled_hybrid
    diffusion.weighting = "none"  # of the squared error: min_snr, p2
    diffusion.weighting_gamma = 0.0  # γ; 0 for the paper's (5 for min_snr, 1 for p2)
    diffusion.weighting_k = 1.0  # k of p2
    diffusion.timestep_sampler = "uniform"  # or loss_second_moment

    # Of model.kind=gaussian_2015 and binomial_2015, see docs/paper_2015.md:
    diffusion.learn_betas = True  # β of t ≥ 2; beta_start is β_1, never learned
    diffusion.data_mean = 0.0  # subtracted from Gaussian data …
    diffusion.data_std = 1.0  # … which are then divided by it: unit variance is best
    diffusion.prior_mean = 0.5  # of bits: mean of kernel and prior
    diffusion.bits_of = "x_0"  # what logits of bits are of; x_prev: the paper's f_b

    config.train = train = config_dict.ConfigDict()
    train.steps = 100_000  # optimizer steps
    train.batch_size = 128  # images of one step, over all devices
    train.microbatches = 1  # parts of a batch evaluated in turn: less memory
    train.optimizer = "adam"  # or muon: learns more a step, which takes longer
    train.learning_rate = 1e-4  # peak
    train.warmup_steps = 0  # linear rise from 0
    train.decay = "none"  # of the learning rate to 0 at train.steps: linear, cosine
    train.weight_decay = 0.0  # decoupled (AdamW)
    train.clip_norm = 0.0  # global norm of the gradient; 0 for no clipping
    train.beta_1 = 0.9  # Adam
    train.beta_2 = 0.999  # Adam
    train.epsilon = 1e-8  # Adam
    train.mu_dtype = "float32"  # of Adam's first moment; bfloat16 halves its memory
    train.ema_decay = (0.9999,)  # rates; sampling uses the first; () for no average
    train.ema_ramp = True  # see training.ema.decay_at; the papers' codes: False
    train.label_dropout = 0.0  # share without label or caption: enables guidance
    train.log_every = 100  # steps
    train.sample_every = 5_000  # steps between sample grids; 0 for none
    train.checkpoint_every = 5_000  # steps; the last step is always saved
    train.keep_checkpoints = 3  # newest ones kept
    train.keep_every = 0  # steps; checkpoints at multiples are kept for ever; 0: none
    train.evaluate_every = 0  # steps between evaluation.in_training; 0 for none
    train.validate_every = 1_000  # steps between losses of fixed test images, t, noise
    train.writers = ()  # besides metrics.jsonl: tensorboard, wandb
    train.init_from = ""  # run whose weights to start from
    train.init_min_share = 0.5  # of the arrays that must fit; fewer are refused
    train.max_bad_steps = 3  # non-finite in a row: roll back to a checkpoint, once
    train.exit_code_on_preemption = 0  # of training saved on SIGTERM; schedulers: 143

    config.sampling = sampling = config_dict.ConfigDict()
    sampling.method = "ancestral"  # or ddim, heun, dpmpp_2m, dpmpp_2s
    sampling.steps = config_dict.placeholder(int)  # 1 … T timesteps; unset for T
    sampling.spacing = (
        ""  # of steps: even, trailing, quadratic, logsnr; "": the method's
    )
    sampling.respacing = ""  # instead of steps: "ddim50", "90,60,60,20,20", "fast27"
    sampling.num_samples = 64  # images to make
    sampling.batch_size = 64  # images made at a time; changes no image
    sampling.eta = 0.0  # noise share of ddim, 0 … 1
    sampling.labels = ()  # names, else indices, in turn; name:1, index:1; () for all
    # … or random: drawn from seed and number of the image, as in the papers
    sampling.per_class = 0  # images of each class, instead of num_samples; 0: in turn
    sampling.guidance_scale = 1.0  # 1 is plain conditional, 0 unconditional
    sampling.guidance_w = 0.0  # instead: w of Ho & Salimans 2021, guidance_scale − 1
    sampling.guidance_interval = (0.0, 1.0)  # guidance acts where low ≤ t/T < high
    sampling.guidance_rescale = 0.0  # share of the deviation brought back (Lin 2023)
    sampling.prompts = ()  # by --prompt and --prompts; in turn; () for those of the run
    sampling.negative = ""  # class or prompt to lead away from, instead of none
    sampling.classifier = ""  # RUN or RUN@STEP of a noisy classifier that guides
    sampling.classifier_scale = 1.0  # factor of its gradient (ADM)
    sampling.guidance_t_max = 1.0  # the classifier acts where t/T is below
    sampling.weaker = ""  # RUN or RUN@STEP to lead away from (autoguidance)
    sampling.weaker_scale = 2.0  # 1 is this run alone (Karras et al. 2024)
    sampling.low_res = ()  # of upsamplers: RUN, or several in turn; folder, archive
    sampling.low_res_t = 0  # noise put on that: t steps of the process, 0 for none …
    sampling.low_res_sigma = 0.0  # … or the nearest to a deviation √(1/ᾱ − 1)
    sampling.weights = "auto"  # ema, raw, or whichever is better
    sampling.checkpoint = "last"  # or a step, or best by evaluation.in_training
    sampling.clip = True  # clip x̂_0 to [−1, 1]
    sampling.dynamic_threshold = 0.0  # largest threshold; 0 for none
    sampling.temperature = 1.0  # factor of x_T; below 1: less variety, GLIDE's 0.997
    sampling.seed = 0  # image i of a seed is the same for any batch size

    config.editing = editing = config_dict.ConfigDict()  # of given pictures
    editing.method = ""  # of the mode, see docs/editing.md; "" for its usual one
    editing.variants = 4  # results of each picture
    editing.keep_size = False  # edit at the picture's own size, not that of the run
    editing.box = ()  # inpaint: x, y, width, height of what is made, instead of a mask
    editing.invert = False  # inpaint: black is made, not white
    editing.paste = False  # inpaint: also put the result into the picture as given
    editing.quality = "good"  # inpaint: fast, good, best: 1, 5, 10 resamplings
    editing.resamplings = 0  # inpaint by repaint: of each step; 0 for quality's
    editing.jump = 0  # inpaint by repaint: steps of a jump; 0 for a tenth of them
    editing.likelihood = "pigdm"  # restore, inpaint by guided: dps, pigdm, exact
    editing.operator = ""  # restore: superres:2, blur:1.5, grey, … docs/restore.md
    editing.noise = 0.0  # restore: deviation of the noise, where white − black is 2
    editing.degrade = False  # restore: the pictures are the truth, and are measured
    editing.draws = 16  # restore: results of each measurement
    editing.iterations = 5  # restore: of conjugate gradients in each step
    editing.strength = 0.6  # vary: noise added, as a share of T; 1 is a new image
    editing.from_sample = ""  # vary: image i of the run's samples at step t, "i@t"
    editing.image_labels = ()  # vary: classes of the pictures; () for sampling.labels
    editing.frames = 0  # pictures along the way; 0 for the mode's usual number
    editing.mix = ""  # interpolate: linear, spherical, preserving; "": the method's
    editing.levels = (0.25, 0.5, 0.75, 1.0)  # interpolate by noised: t/T of the rows
    editing.samples = ()  # interpolate: numbers of two samples, instead of pictures
    editing.min_psnr = 25.0  # dB that encoding and decoding must reach
    editing.force = False  # go on where encoding is refused
    editing.kind = "denoise"  # animate: denoise, walk, morph, guidance, train
    editing.format = "gif"  # animate: gif, apng, webp, mp4
    editing.fps = 0  # animate: frames a second; 0 for 12, fewer where frames are few
    editing.seeds = 4  # animate walk: seeds passed, the first is sampling.seed
    editing.scales = (0.0, 6.0)  # animate guidance: guidance_scale from, to, and back

    config.evaluation = evaluation = config_dict.ConfigDict()
    evaluation.metric = "bits_per_dim"  # one or several of metrics.table.NAMES
    evaluation.num_images = 0  # bits/dim, accuracy, psnr: first test images; 0: all
    evaluation.draws = 8  # psnr, consistency: results of each test image
    evaluation.num_samples = 10_000  # images to make for the other metrics
    evaluation.samples = ""  # samples.npz or folder to score whole; "" makes them
    evaluation.reference = ""  # statistics or images (.npz, folder); "" for the data
    evaluation.inception = ""  # weights file; "" for $DDPM_JAX_INCEPTION
    evaluation.resize = "tf-legacy"  # to 299x299: pytorch-fid, clean
    evaluation.in_training = "bits_per_dim"  # metrics of train.evaluate_every
    evaluation.in_training_samples = 1_000  # images that these are measured on
    evaluation.batch_size = 64  # images scored at a time; changes no score
    evaluation.steps = config_dict.placeholder(int)  # unset for T, as in the papers
    evaluation.respacing = ""  # instead of steps
    evaluation.weights = "auto"  # ema, raw, or whichever is better
    evaluation.clip = True  # clip x̂_0 to [−1, 1]
    evaluation.trajectories = 16  # bound: averaged over for log p; 0 for no log p
    evaluation.seed = 0  # of the noise

    config.mesh = mesh = config_dict.ConfigDict()
    mesh.data = -1  # devices along which only the batch is split; −1 for the rest
    mesh.fsdp = 1  # devices along which the state is split too
    mesh.cpu_devices = 0  # that a CPU is split into for training; 0 leaves it to JAX
    return config


# What an existing run lets change: the rest decides what its weights mean.
MUTABLE = (
    "train.steps",
    "train.log_every",
    "train.sample_every",
    "train.checkpoint_every",
    "train.keep_checkpoints",
    "train.keep_every",
    "train.evaluate_every",
    "train.validate_every",
    "train.writers",
    "train.init_min_share",
    "train.max_bad_steps",
    "train.exit_code_on_preemption",
    "train.microbatches",
    "data.path",
    "data.vocabulary",
    "data.cache_gib",
    "sampling.*",
    "editing.*",
    "evaluation.*",
    "mesh.*",
)
