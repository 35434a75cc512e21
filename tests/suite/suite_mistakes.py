"""A good suite file, and mistakes in it: what is replaced, by what, and the line that tells of it."""

from __future__ import annotations

GOOD = """
title = "A suite"
tasks = ["squad_v1", "glue/cola"]
baseline = "torch_fp32"
seeds = [1, 2]

[models.base]
source = "hub:owner/name"
recipe = "load"
[models.tiny]
source = "scratch"
recipe = "finetune"
architecture = { num_hidden_layers = 2, hidden_size = 128, num_attention_heads = 2, intermediate_size = 512 }
[models.tiny.train]
learning_rate = 1e-3
epochs = 3
[models.tiny.task."glue/cola"]
train = { epochs = 10 }
shape = { max_length = 64 }
[models.again]
source = "model:tiny"
recipe = "finetune"
train = { learning_rate = 1e-4, epochs = 1 }

[shape]
max_length = 384
doc_stride = 128
batch_sizes = [1, 32]

[[backends]]
name = "torch_fp32"
[[backends]]
name = "onnxruntime_int8"
scheme = "engine_int8"
[[backends]]
name = "onnxruntime_int8"
scheme = "engine_int8_asymmetric"
[[backends]]
name = "tensorrt_int8"
scheme = "engine_int8"
label = "TensorRT INT8"

[measure]
rounds = 5

[[references]]
system = "elsewhere"
task = "squad_v1"
metrics = { f1 = 88.2 }
notes = ["another machine"]
source = "a paper"

[sample]
max_length = 128
doc_stride = 64
[sample.model]
num_hidden_layers = 2
hidden_size = 128
num_attention_heads = 2
intermediate_size = 512
[sample.train]
learning_rate = 1e-3
epochs = 3
"""

TRAIN = "train = { learning_rate = 1e-4, epochs = 1 }"
CASES = {
    "unknown task": ('"glue/cola"]', '"glue/colla"]', "tasks[1]: unknown task 'glue/colla'; did you mean 'glue/cola'?"),
    "task twice": ('"glue/cola"]', '"glue/cola", "squad_v1"]', "tasks[2]: 'squad_v1' is there twice; delete one"),
    "no task": ('["squad_v1", "glue/cola"]', "[]", "tasks: must not be empty"),
    "baseline elsewhere": (
        'baseline = "torch_fp32"',
        'baseline = "torch_fp16"',
        "baseline: 'torch_fp16' is not one of the backends; did you mean 'torch_fp32'?",
    ),
    "baseline of two rows": (
        'baseline = "torch_fp32"',
        'baseline = "onnxruntime_int8"',
        "baseline: 2 entries of [[backends]] are 'onnxruntime_int8'; name one by its label: torch_fp32, "
        "onnxruntime_int8 (engine_int8), onnxruntime_int8 (engine_int8_asymmetric), TensorRT INT8",
    ),
    "negative seed": ("[1, 2]", "[-1, 2]", "seeds[0]: must be at least 0, not -1"),
    "true is no seed": ("[1, 2]", "[true, 2]", "seeds[0]: must be a whole number, not true"),
    "a half seed": ("[1, 2]", "[1.5, 2]", "seeds[0]: must be a whole number, not 1.5"),
    "seed twice": ("[1, 2]", "[2, 2]", "seeds[1]: 2 is there twice; delete one"),
    "model's name": (
        "[models.base]",
        '[models."../base"]',
        "models.\"../base\": a model's name is made of small letters, digits, '.', '_', '-': it goes into file names",
    ),
    "hub id": (
        "hub:owner/name",
        "hub:owner/name?trust_remote_code=true",
        "models.base.source: not the id of a model on the hub: 'owner/name?trust_remote_code=true'; write hub:OWNER/NAME",
    ),
    "trusted code": (
        'recipe = "load"',
        'recipe = "load"\ntrust_remote_code = true',
        "models.base.trust_remote_code: unknown key; known: source, recipe, scheme, teacher, distill, calibration, architecture, train, task",
    ),
    "package that climbs": (
        "hub:owner/name",
        "package:json/../email",
        "models.base.source: not a folder of a package: 'json/../email'; write package:NAME/FOLDER, without '..'",
    ),
    "package's absolute folder": (
        "hub:owner/name",
        "package:json//etc",
        "models.base.source: not a folder of a package: 'json//etc'; write package:NAME/FOLDER, without '..'",
    ),
    "folder that climbs": (
        "hub:owner/name",
        "../models/x",
        "models.base.source: a folder must lie below the suite file's own, without '..': '../models/x'",
    ),
    "absolute folder": (
        "hub:owner/name",
        "/etc",
        "models.base.source: a folder must lie below the suite file's own, without '..': '/etc'",
    ),
    "kind of source": (
        "hub:owner/name",
        "hbu:owner/name",
        "models.base.source: unknown kind of source 'hbu:'; did you mean 'hub'?",
    ),
    "unknown model": ("model:tiny", "model:tyni", "models.again.source: unknown model 'tyni'; did you mean 'tiny'?"),
    "model elsewhere": (
        "model:tiny",
        "model:large",
        "models.again.source: unknown model 'large'; known: base, tiny, again",
    ),
    "model of itself": ("model:tiny", "model:again", "models.again.source: models go in a circle: 'again' -> 'again'"),
    "load trains": (
        'recipe = "load"',
        f'recipe = "load"\n{TRAIN}',
        "models.base.train: recipe 'load' trains nothing; delete it, or set recipe = 'finetune'",
    ),
    "finetune of nothing": (
        TRAIN,
        "",
        "models.again.train: is missing: recipe 'finetune' needs at least learning_rate and epochs",
    ),
    "recipe": (
        'recipe = "load"',
        'recipe = "prune"',
        "models.base.recipe: must be 'load', 'finetune', 'qat' or 'distill', not 'prune'",
    ),
    "scheme of a loaded model": (
        'recipe = "load"',
        'recipe = "load"\nscheme = "engine_int8"',
        "models.base.scheme: recipe 'load' does not train quantizers; a post-training scheme belongs to a [[backends]] entry",
    ),
    "random weights as they are": (
        'source = "hub:owner/name"',
        'source = "model:tiny"',
        "models.base.recipe: 'load' uses weights as they are, which 'model:tiny' has none of; use 'finetune'",
    ),
    "sizes of a hub model": (
        'recipe = "load"',
        'recipe = "load"\narchitecture = { num_hidden_layers = 1, hidden_size = 8, num_attention_heads = 1, intermediate_size = 8 }',
        "models.base.architecture: only source 'scratch' takes sizes; 'hub:owner/name' brings its own",
    ),
    "heads": (
        "hidden_size = 128",
        "hidden_size = 127",
        "models.tiny.architecture.hidden_size: 127 is not a multiple of num_attention_heads, 2",
    ),
    "learning rate": (
        "learning_rate = 1e-3",
        "learning_rate = 0",
        "models.tiny.train.learning_rate: must be above 0, not 0",
    ),
    "not a number": (
        "learning_rate = 1e-3",
        "learning_rate = nan",
        "models.tiny.train.learning_rate: must be a finite number, not nan",
    ),
    "warm-up": (
        "epochs = 3\n[models.tiny.task",
        "epochs = 3\nwarmup_ratio = 1.5\n[models.tiny.task",
        "models.tiny.train.warmup_ratio: must be below 1, not 1.5",
    ),
    "schedule": (
        "epochs = 3\n[models.tiny.task",
        'epochs = 3\nschedule = "lineer"\n[models.tiny.task',
        "models.tiny.train.schedule: unknown value 'lineer'; did you mean 'linear'?",
    ),
    "impossible override": (
        "train = { epochs = 10 }",
        "train = { polynomial_power = 2.0 }",
        "models.tiny.task.\"glue/cola\".train: polynomial_power needs schedule = 'polynomial'",
    ),
    "stride of a sentence": (
        "shape = { max_length = 64 }",
        "shape = { max_length = 64, doc_stride = 8 }",
        "models.tiny.task.\"glue/cola\".shape.doc_stride: only question answering has it; 'glue/cola' does not: delete it",
    ),
    "task of another suite": (
        '[models.tiny.task."glue/cola"]',
        '[models.tiny.task."glue/rte"]',
        "models.tiny.task.\"glue/rte\": 'glue/rte' is not one of this suite's tasks; add it to tasks, or delete this",
    ),
    "stride as long as the window": (
        "doc_stride = 128",
        "doc_stride = 384",
        "shape.doc_stride: 384 must be below max_length, 384: windows must overlap",
    ),
    "default stride": (
        "max_length = 384\ndoc_stride = 128",
        "max_length = 100",
        "shape.doc_stride: 128 (the default) must be below max_length, 100: windows must overlap",
    ),
    "question fills the window": (
        "doc_stride = 128",
        "doc_stride = 128\nmax_query_length = 381",
        "shape.max_query_length: 381 and 3 special tokens leave no room for context in max_length, 384",
    ),
    "negative batch": ("[1, 32]", "[1, -32]", "shape.batch_sizes[1]: must be at least 1, not -32"),
    "padding": (
        "doc_stride = 128",
        'doc_stride = 128\npadding = "max_len"',
        "shape.padding: unknown value 'max_len'; did you mean 'max_length'?",
    ),
    "no shape": (
        "max_length = 384\n",
        "",
        "shape.max_length: is missing (tokens of a sequence, special tokens included)",
    ),
    "unknown backend": (
        'name = "tensorrt_int8"',
        'name = "tensorrt_in8"',
        "backends[3].name: unknown backend 'tensorrt_in8'; did you mean 'tensorrt_int8'?",
    ),
    "backend without a scheme": (
        'name = "tensorrt_int8"\nscheme = "engine_int8"',
        'name = "tensorrt_int8"',
        "backends[3].scheme: is missing: 'tensorrt_int8' quantizes with a scheme; known: engine_int8, q8bert",
    ),
    "scheme without quantization": (
        'name = "torch_fp32"',
        'name = "torch_fp32"\nscheme = "engine_int8"',
        "backends[0].scheme: 'torch_fp32' does not quantize; delete it",
    ),
    "unknown scheme": (
        'scheme = "engine_int8"\nlabel',
        'scheme = "engine_int4"\nlabel',
        "backends[3].scheme: unknown scheme 'engine_int4'; did you mean 'engine_int8'?",
    ),
    "unknown option": (
        'name = "torch_fp32"',
        'name = "torch_fp32"\nlabell = "x"',
        "backends[0].labell: unknown key; 'torch_fp32' has no such option; did you mean 'label'?",
    ),
    "scheme of no engine": (
        'scheme = "engine_int8"\nlabel',
        'scheme = "vitis_pof2"\nlabel',
        "backends[3].scheme: no engine computes 'vitis_pof2' (it rounds ties up, where engines round them to even), and"
        " 'tensorrt_int8' takes what engines do: engine_int8, q8bert",
    ),
    "same row": (
        'scheme = "engine_int8_asymmetric"',
        'scheme = "engine_int8"',
        "backends[2]: 'onnxruntime_int8' with the same scheme and options is there twice; delete one",
    ),
    "same label": (
        'label = "TensorRT INT8"',
        'label = "torch_fp32"',
        "backends[3].label: two entries are called 'torch_fp32'; give this one a label of its own",
    ),
    "scenario": (
        "rounds = 5",
        'scenarios = ["single_stream", "serve"]',
        "measure.scenarios[1]: unknown value 'serve'; did you mean 'server'?",
    ),
    "MLPerf's durations": (
        "rounds = 5",
        'profile = "mlperf"\nmin_duration = 3.0',
        "measure.min_duration: profile 'mlperf' takes MLPerf's own; delete it, or set profile = 'quick'",
    ),
    "MLPerf on the sample": (
        "[sample]",
        '[sample.measure]\nprofile = "mlperf"\n[sample]',
        "sample.measure.profile: the sample is always measured with 'quick'; delete it",
    ),
    "a bound for nobody": (
        "rounds = 5",
        "server_latency_ms = 10.0",
        "measure.server_latency_ms: only 'server' has a bound; add it to scenarios, or delete this",
    ),
    "rounds": ("rounds = 5", "rounds = 0", "measure.rounds: must be at least 1, not 0"),
    "infinite": ("f1 = 88.2", "f1 = inf", "references[0].metrics.f1: must be a finite number, not inf"),
    "incomparable": ('notes = ["another machine"]', "notes = []", "references[0].notes: must not be empty"),
    "sample's stride": (
        "doc_stride = 64",
        "doc_stride = 128",
        "sample.doc_stride: 128 must be below max_length, 128: windows must overlap",
    ),
    "table for a list": ("[1, 32]", "{}", "shape.batch_sizes: must be a list, not a table"),
    "date": ("max_length = 384", "max_length = 2020-01-01", "shape.max_length: must be a whole number, not 2020-01-01"),
}
