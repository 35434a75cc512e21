"""A good suite file, and mistakes in it: what is replaced, by what, and the line that reports it."""

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
    "task twice": ('"glue/cola"]', '"glue/cola", "squad_v1"]', "tasks[2]: 'squad_v1' is listed twice; delete one"),
    "no task": ('["squad_v1", "glue/cola"]', "[]", "tasks: must not be empty"),
    "baseline elsewhere": (
        'baseline = "torch_fp32"',
        'baseline = "torch_fp16"',
        "baseline: 'torch_fp16' is not one of the backends; did you mean 'torch_fp32'?",
    ),
    "baseline of two rows": (
        'baseline = "torch_fp32"',
        'baseline = "onnxruntime_int8"',
        "baseline: 2 entries of [[backends]] are named 'onnxruntime_int8'; use the label of one: torch_fp32, onnxruntime_int8 (engine_int8), onnxruntime_int8 (engine_int8_asymmetric), TensorRT INT8",
    ),
    "negative seed": ("[1, 2]", "[-1, 2]", "seeds[0]: must be at least 0, not -1"),
    "true is no seed": ("[1, 2]", "[true, 2]", "seeds[0]: must be a whole number, not true"),
    "a half seed": ("[1, 2]", "[1.5, 2]", "seeds[0]: must be a whole number, not 1.5"),
    "seed twice": ("[1, 2]", "[2, 2]", "seeds[1]: 2 is listed twice; delete one"),
    "model's name": (
        "[models.base]",
        '[models."../base"]',
        "models.\"../base\": a model name may hold lower-case letters, digits, '.', '_' and '-' only; rename the model",
    ),
    "hub id": (
        "hub:owner/name",
        "hub:owner/name?trust_remote_code=true",
        "models.base.source: 'owner/name?trust_remote_code=true' is not a model id; write hub:OWNER/NAME or hub:OWNER/NAME@REVISION",
    ),
    "trusted code": (
        'recipe = "load"',
        'recipe = "load"\ntrust_remote_code = true',
        "models.base.trust_remote_code: unknown key; known: source, recipe, made_from, labels, scheme, teacher, distill, calibration, architecture, train, task",
    ),
    "package that climbs": (
        "hub:owner/name",
        "package:json/../email",
        "models.base.source: 'json/../email' is not a folder of a package; write package:NAME/FOLDER, without '..'",
    ),
    "package's absolute folder": (
        "hub:owner/name",
        "package:json//etc",
        "models.base.source: 'json//etc' is not a folder of a package; write package:NAME/FOLDER, without '..'",
    ),
    "folder that climbs": (
        "hub:owner/name",
        "../models/x",
        "models.base.source: '../models/x' is not below the suite file's folder; write a relative path without '..'",
    ),
    "absolute folder": (
        "hub:owner/name",
        "/etc",
        "models.base.source: '/etc' is not below the suite file's folder; write a relative path without '..'",
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
    "model of itself": (
        "model:tiny",
        "model:again",
        "models.again.source: models form a circle: 'again' -> 'again'; name another model here",
    ),
    "load trains": (
        'recipe = "load"',
        f'recipe = "load"\n{TRAIN}',
        "models.base.train: recipe 'load' does not train; delete this table, or set recipe = 'finetune'",
    ),
    "finetune of nothing": (
        TRAIN,
        "",
        "models.again.train: is missing; recipe 'finetune' needs at least learning_rate and epochs",
    ),
    "recipe": (
        'recipe = "load"',
        'recipe = "prune"',
        "models.base.recipe: must be 'load', 'finetune', 'qat', 'distill' or 'random', not 'prune'",
    ),
    "scheme of a loaded model": (
        'recipe = "load"',
        'recipe = "load"\nscheme = "engine_int8"',
        "models.base.scheme: recipe 'load' does not train quantizers; delete this key, or move it to a [[backends]] entry",
    ),
    "random weights as they are": (
        'source = "hub:owner/name"',
        'source = "model:tiny"',
        "models.base.recipe: 'load' needs a source with finished weights, which 'model:tiny' is not; use 'finetune'",
    ),
    "sizes of a hub model": (
        'recipe = "load"',
        'recipe = "load"\narchitecture = { num_hidden_layers = 1, hidden_size = 8, num_attention_heads = 1, intermediate_size = 8 }',
        "models.base.architecture: only source 'scratch' needs sizes, 'hub:owner/name' has its own; delete this table, or set"
        " recipe = 'random'",
    ),
    "random weights that are trained": (
        'recipe = "load"',
        'recipe = "random"\ntrain = { learning_rate = 1e-4, epochs = 1 }',
        "models.base.train: recipe 'random' does not train; delete this table, or set recipe = 'finetune'",
    ),
    "random weights that are trained on one task": (
        'recipe = "load"',
        'recipe = "random"\ntask."squad_v1".train = { epochs = 1 }',
        "models.base.task.squad_v1.train: recipe 'random' does not train; delete this table, or set recipe = 'finetune'",
    ),
    "random weights with names of classes": (
        'recipe = "load"',
        'recipe = "random"\nlabels = ["a", "b"]',
        "models.base.labels: recipe 'random' takes the task's classes; delete this key, or set recipe = 'load'",
    ),
    "random weights with a scheme": (
        'recipe = "load"',
        'recipe = "random"\nscheme = "engine_int8"',
        "models.base.scheme: recipe 'random' does not train quantizers; delete this key, or move it to a [[backends]] entry",
    ),
    "random weights without a tokenizer": (
        'source = "hub:owner/name"\nrecipe = "load"',
        'source = "model:tiny"\nrecipe = "random"',
        "models.base.source: 'random' needs a tokenizer; write hub:ID, package:NAME/FOLDER or a folder, not 'model:tiny'",
    ),
    "trained from random weights": (
        'recipe = "load"',
        'recipe = "random"\n[models.more]\nsource = "model:base"\nrecipe = "finetune"\ntrain = { learning_rate = 1e-4, epochs = 1 }',
        "models.more.source: 'model:base' has random weights, for speed alone; name a model that was trained",
    ),
    "taught by random weights": (
        'recipe = "load"',
        'recipe = "random"\n[models.more]\nsource = "model:tiny"\nrecipe = "distill"\nteacher = "model:base"\n'
        "train = { learning_rate = 1e-4, epochs = 1 }\ndistill = { labels = {} }",
        "models.more.teacher: 'model:base' has random weights, for speed alone; name a model that was trained",
    ),
    "heads": (
        "hidden_size = 128",
        "hidden_size = 127",
        "models.tiny.architecture.hidden_size: 127 is not a multiple of num_attention_heads (2); change one of them",
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
        "models.tiny.task.\"glue/cola\".shape.doc_stride: only question answering uses it, and 'glue/cola' is another kind of task; delete this key",
    ),
    "task of another suite": (
        '[models.tiny.task."glue/cola"]',
        '[models.tiny.task."glue/rte"]',
        "models.tiny.task.\"glue/rte\": 'glue/rte' is not one of this suite's tasks; add it to tasks, or delete this",
    ),
    "stride as long as the window": (
        "doc_stride = 128",
        "doc_stride = 384",
        "shape.doc_stride: 384 must be below max_length (384), so that windows overlap; lower it",
    ),
    "default stride": (
        "max_length = 384\ndoc_stride = 128",
        "max_length = 100",
        "shape.doc_stride: 128 (the default) must be below max_length (100), so that windows overlap; lower it",
    ),
    "question fills the window": (
        "doc_stride = 128",
        "doc_stride = 128\nmax_query_length = 381",
        "shape.max_query_length: 381 and 3 special tokens leave no room for context in max_length (384); lower it",
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
        "shape.max_length: is missing; add it (tokens of a sequence, special tokens included)",
    ),
    "unknown backend": (
        'name = "tensorrt_int8"',
        'name = "tensorrt_in8"',
        "backends[3].name: unknown backend 'tensorrt_in8'; did you mean 'tensorrt_int8'?",
    ),
    "backend without a scheme": (
        'name = "tensorrt_int8"\nscheme = "engine_int8"',
        'name = "tensorrt_int8"',
        "backends[3].scheme: is missing; 'tensorrt_int8' needs one of engine_int8, q8bert",
    ),
    "scheme without quantization": (
        'name = "torch_fp32"',
        'name = "torch_fp32"\nscheme = "engine_int8"',
        "backends[0].scheme: 'torch_fp32' does not quantize; delete this key",
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
        "backends[3].scheme: 'tensorrt_int8' cannot run 'vitis_pof2', which can only be simulated (it rounds ties up, where engines round them to even); use one of engine_int8, q8bert",
    ),
    "same row": (
        'scheme = "engine_int8_asymmetric"',
        'scheme = "engine_int8"',
        "backends[2]: 'onnxruntime_int8' with the same scheme and options is listed twice; delete one",
    ),
    "same label": (
        'label = "TensorRT INT8"',
        'label = "torch_fp32"',
        "backends[3].label: another entry already has the label 'torch_fp32'; set a different one here",
    ),
    "scenario": (
        "rounds = 5",
        'scenarios = ["single_stream", "serve"]',
        "measure.scenarios[1]: unknown value 'serve'; did you mean 'server'?",
    ),
    "MLPerf's durations": (
        "rounds = 5",
        'profile = "mlperf"\nmin_duration = 3.0',
        "measure.min_duration: profile 'mlperf' uses MLPerf's own value; delete this key, or set profile = 'quick'",
    ),
    "MLPerf on the sample": (
        "[sample]",
        '[sample.measure]\nprofile = "mlperf"\n[sample]',
        "sample.measure.profile: the sample is always measured with 'quick'; delete this key",
    ),
    "a bound for nobody": (
        "rounds = 5",
        "server_latency_ms = 10.0",
        "measure.server_latency_ms: only scenario 'server' has a latency bound; add it to scenarios, or delete this key",
    ),
    "rounds that are left open": (
        "rounds = 5",
        "rounds = 5\nmax_rounds = 20",
        "measure.max_rounds: the median of a few rounds has no interval; set rounds to 7 or more, or delete this key",
    ),
    "too many rounds": (
        "rounds = 5",
        "rounds = 7\nmax_rounds = 29",
        "measure.max_rounds: 29 is not between rounds and 4 times as many (7 to 28); change it",
    ),
    "rounds": ("rounds = 5", "rounds = 0", "measure.rounds: must be at least 1, not 0"),
    "infinite": ("f1 = 88.2", "f1 = inf", "references[0].metrics.f1: must be a finite number, not inf"),
    "incomparable": ('notes = ["another machine"]', "notes = []", "references[0].notes: must not be empty"),
    "sample's stride": (
        "doc_stride = 64",
        "doc_stride = 128",
        "sample.doc_stride: 128 must be below max_length (128), so that windows overlap; lower it",
    ),
    "table for a list": ("[1, 32]", "{}", "shape.batch_sizes: must be a list, not a table"),
    "date": ("max_length = 384", "max_length = 2020-01-01", "shape.max_length: must be a whole number, not 2020-01-01"),
}
