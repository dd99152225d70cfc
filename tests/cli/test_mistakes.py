"""A mistake in the arguments prints one line: the option as typed, what was got, and what is valid."""

import jax
import pytest

from fa_jax.cli.main import main

MISTAKES = {
    # Choices of config groups
    "rule=dfaa": "got 'dfaa'; did you mean 'dfa'?",
    "task=mnits": "did you mean 'mnist'?",
    "architecture=mpl": "module, recurrent, residual_mlp, resnet20, resnet56, resnet8, transformer, vgg; got 'mpl'; "
    "did you mean 'mlp'?",
    "optimizer/schedule=cosin": "optimizer/schedule must be one of constant, constant_then_linear, cosine, linear, "
    "step_decay; got 'cosin'; did you mean 'cosine'?",
    "feedback=direkt": "feedback must be one of deviations, direct, direct_zeros, first_layer, layerwise, magnitudes, "
    "to_input; got 'direkt'; did you mean 'direct'?",
    "measure=[separation,separatoin]": "measure must be one of null_angle, pseudobackprop, rho, separation, "
    "sign_agreement; got 'separatoin'; did you",
    "logger=tensorbord": "logger must be one of mlflow, tensorboard, wandb; got 'tensorbord'; did you mean",
    "rule=null": "usf, weight_mirror; got null",
    "measure=5": "measure must be one of null_angle, pseudobackprop, rho, separation, sign_agreement; got 5",
    "~optimizer": "optimizer may be changed, but not removed",
    "~rule": "rule may be changed, but not removed",
    "--multirun rule=bp,fo": "rule must be one of",
    # Names of options
    "output=here": "output is no option; did you mean 'hydra.run.dir'? A sweep goes to hydra.sweep.dir",
    "--multirun folder=here": "folder is no option; did you mean 'hydra.run.dir'?",
    "epchs=3": "epchs is no option; did you mean 'epochs'?",
    "optimizer.rate=3": "optimizer.rate is no option with optimizer=sgd; did you mean 'optimizer.learning_rate'?",
    "rule=bp optimizer.lr=0.1": "optimizer.lr is no option with optimizer=sgd; did you mean 'optimizer.learning_rate'?",
    "rule=fa feedback.scal=3": "feedback.scal is no option with feedback=layerwise; did you mean 'feedback.scale'?",
    "rule=fa rule.scal=3": "rule.scal is no option with rule=fa; did you mean 'feedback.scale'?",
    "rule=dfa feedback.fan=fan_in": "feedback.fan is no option with feedback=direct; valid: feedback.dis",
    "+epoch=2": "epoch is no option; did you mean 'epochs'?",
    "+choices.rule=fa": "choices is no option; choices are those of config groups, such as rule=fa",
    "hidden=[9]": "hidden is no option; did you mean 'architecture.hidden'?",
    "task=digits rule=forward_forward rule.foo=3": "rule.foo is no option with rule=forward_forward; valid: rule.good",
    "--multirun rule=bp,shallow feedback.scale=3": "feedback.scale is no option with rule=bp, which has no feedback",
    "--multirun rule=fa,ifa rule.scal=3": "rule.scal is no option with rule=fa or ifa; did you mean 'feedback.scale'?",
    "--multirun rule=bp,scff rule.threshol=3": "rule.threshol is no option with rule=bp or scff; did you mean 'rule.po",
    "rule=bp feedback.scale=1": "feedback.scale is no option with rule=bp, which has no feedback to initialise",
    "+rule.foo=1 rule=fa": "rule: got an unexpected keyword argument 'foo'",
    "+architecture.foo=1": "architecture: got an unexpected keyword argument 'foo'",
    "task._target_={a:os.mkdir}": "task must be chosen by name, or have a _target_; got {'",
    "+optimizer.foo=1": "optimizer: got an unexpected keyword argument 'foo'",
    "~feedback.scale rule=fa": "feedback: missing a required argument: 'scale'",
    "~adversarial": "adversarial is missing from the config; it may be changed, but not removed",
    "seed=[": "seed=[ cannot be read as an override such as seeds=[3,5,8]: ",
    # Values
    "seeds=0": "seeds must be an integer of at least 1; got 0",
    "seeds=100000000000": "seeds must be at most 1,000,000; got 100,000,000,000",
    "seeds=-3": "seeds must be an integer of at least 1; got -3",
    "seeds=many": "seeds must be an integer of at least 1; got 'many'",
    "seeds=[1,1]": "seeds must be a number or a list of different seeds, such as [3,5,8]; got [1, 1]",
    "seeds=[]": "seeds must be a number or a list of different seeds, such as [3,5,8]; got []",
    "--multirun rule=bp,fa seeds=0": "seeds must be an integer of at least 1; got 0",
    "seed=1 seeds=[3,5]": "seed must be 0 with a list of seeds, which names them all; got 1",
    "batch_size=1 architecture.norm=batch": "batch_size must be at least 2: normalised over a batch of one example",
    "measure=[separation]": "measure=separation needs a task with classes, such as task=digits",
    "task=digits measure=[separation] probe=0": "measure=separation needs probe examples on which it is measured",
    "task=digits frozen=[]": "frozen must name params, or be null; got []",
    "task=digits rule=shallow frozen=[stages_0]": "frozen has no effect with 'stages_0': it names what this rule does",
    "task=digits architecture.norm=batch frozen=['*/mean']": "frozen has no effect with '*/mean': it names what this",
    "task=digits architecture.norm=batch frozen=['*/kernel','*/bias','*/scale']": "frozen must leave something to le",
    "rule=kolen_pollack feedback.rank=1": "feedback.rank must be null: this feedback learns, and would not keep it",
    "rule=direct_kolen_pollack architecture.hidden=[9,9] feedback=direct feedback.shared=true": (
        "feedback.shared must be false: this feedback"
    ),
    "rule=kolen_pollack optimizer.clip=1 +optimizer@feedback_optimizer=sgd": "optimizer.clip must be null, and an Opt",
    "task=digits architecture.hidden=[8,8] architecture.norm=batch rule=associated_learning rule.exit_stage=1": "rule."
    "exit_stage must be null with batch statistics",
    "seed=-1": "seed must be an integer of at least 0; got -1",
    "batch_size=0": "batch_size must be an integer of at least 1; got 0",
    "batch_size=3000": "batch_size must be at most the number of training examples, 2000; got 3000",
    "epochs=0": "epochs must be a finite number above 0; got 0",
    "epochs=abc": "epochs must be a finite number above 0; got 'abc'",
    "epochs=1e9": "epochs must come to less than 2^31 steps",
    "evaluations=0": "evaluations must be an integer of at least 1; got 0",
    "spacing=cubic": "spacing must be one of linear, log; got 'cubic'",
    "shuffle=maybe": "shuffle must be true or false; got 'maybe'",
    "augmentation=3": "augmentation must have shift, border, flip and contrast, as in augmentation.shift=2; got 3",
    "task=digits augmentation.shift=-1": "augmentation.shift must be an integer of at least 0; got -1",
    "devices=100": "devices must be at most the number of devices, ",
    "devices=1.5": "devices must be all, or a number; got 1.5",
    "devices=some": "devices must be all, or a number; got 'some'",
    "batch_devices=99": "batch_devices must be at most the number of devices in use",
    "batch_devices=2 devices=2 batch_size=33": "batch_devices must divide batch_size, which is 33; got 2",
    "architecture.hidden=[20,0]": "architecture.hidden must be an integer of at least 1; got 0",
    "architecture.hidden=20": "architecture.hidden must be a list such as [800,800]; got 20",
    "architecture.activation=null": "architecture.activation must be one of",
    "task=digits architecture=cnn architecture.topology=conv8y3-10": "architecture.topology cannot be conv8y3-10: "
    "character 6, 'y3', cannot be read",
    "task=digits architecture=cnn architecture.topology=conv8x3p3-conv8x3p3-conv8x3p3": "too small for its pooling",
    "task=digits architecture=vgg architecture.norm_dense=true": "architecture.norm_dense must be false with norm=none",
    "task=digits architecture.norm=group architecture.hidden=[12]": "architecture.hidden must be a multiple of 8",
    "architecture=cnn": "architecture=cnn needs images; the inputs of the task have shape (30,)",
    "optimizer.learning_rate=-1": "optimizer.learning_rate must be a finite number above 0; got -1",
    "optimizer=momentum optimizer.scaling.decay=abc": "optimizer.scaling.decay=abc",
    "optimizer/schedule=cosine optimizer.schedule.warmup=1": "optimizer.schedule.warmup=1",
    "optimizer/schedule=cosine optimizer.schedule.warmup=2": "optimizer.schedule.warmup must be a finite number at "
    "least 0 and at most 1; got 2",
    "optimizer/schedule=step_decay optimizer.schedule.drops=3": "optimizer.schedule.drops must be pairs such as ",
    "task=digits rule=forward_forward feedback_optimizer.learning_rate=0.5": "feedback_optimizer must be sgd with",
    "feedback_optimizer=sgd": "feedback_optimizer must be null: the feedback of this rule does not learn",
    "rule=forward_dfa feedback_optimizer=sgd": "feedback_optimizer must be chosen by name, or have a _target_",
    "rule=forward_dfa optimizer@feedback_optimizer=momentum": "feedback_optimizer: must be sgd, or adam as in the",
    "rule=forward_dfa feedback_optimizer.weight_decay=0.1": "feedback_optimizer: must be sgd, or adam as in the",
    "rule=forward_dfa feedback_optimizer=null optimizer=momentum": "optimizer=momentum must be sgd, or adam as in",
    "rule=product_feedback_alignment optimizer=adam": "optimizer=adam must be sgd, momentum or ema: this feedback",
    "rule=product_feedback_alignment optimizer.clip=1": "optimizer.clip must be null, and an Optax optimizer must not",
    "rule=kolen_pollack optimizer.clip=1": "optimizer.clip must be null, and an Optax optimizer must not scale all",
    "task=digits rule=associated_learning rule.exit_stage=1": "rule.exit_stage must be below 1, the number of stages",
    "rule=product_feedback_alignment +optimizer@feedback_optimizer=sgd": "feedback_optimizer must be null: this f",
    "rule=weight_mirror feedback_optimizer=null": "optimizer.weight_decay must be above 0: the feedback is an average",
    "rule=weight_mirror feedback_optimizer.weight_decay=0": "feedback_optimizer.weight_decay must be above 0: the feed",
    "rule=fa feedback.scale=nan": "feedback.scale must be a finite number above 0; got nan",
    "rule=fa feedback.scale=[1,2]": "feedback.scale must be one value or a list of 1, one per layer; got 2: [1, 2]",
    "rule=dfa feedback.distribution=weights": "feedback.distribution must be one of uniform, normal, fan_uniform, fan_",
    "task=digits rule=dfa feedback.rank=11": "feedback.rank must be at most 10, the full rank of the feedback of",
    "rule=node_perturbation rule.sigma=0": "rule.sigma must be a finite number above 0; got 0",
    "rule=forward_gradient rule.sigma=0.1": "rule.sigma must be null with derivative=exact, which has no finite noise",
    "rule=forward_gradient architecture.norm=batch": "rule=forward_gradient is not defined for noise in act",
    "task=digits rule=local_forward_gradient rule.groups=7": "rule.groups must divide the 100 channels of stages_0",
    "task=digits rule=local_loss rule.objective=sum": "rule.objective must be one of pred, sim, predsim, mono_forward",
    "loss.output=logstic": "loss.output must be one of linear, sigmoid, logistic, softmax; got 'logstic'; did you mean",
    "task=mnist task.data_dir=nowhere": "task.data_dir must be a folder of TFDS data sets; nowhere does not exist",
    "task.train_examples=-5": "task.train_examples must be an integer of at least 1; got -5",
    "task=digits task.preprocessing=zca task.validation=1400": "task.preprocessing must not be zca unless",
    "tuned=maybe": "tuned must be true or false; got 'maybe'",
    # Combinations
    "loss=cross_entropy": "loss=cross_entropy needs targets from 0 to 1, and this task has others; use loss=squared_",
    "rule=associated_learning": "rule=associated_learning needs a task with classes, such as task=digits",
    "task=digits architecture=resnet20 rule=ifa": "rule=ifa needs stages of one dense layer each",
    "task=digits rule=frozen_blocks architecture.hidden=[9]": "rule=frozen_blocks would be bp with one hidden layer",
    "task=digits frozen=[stage_0]": "frozen must name params, such as those in readout, stages_0; got 'stage_0'; did ",
    "task=digits rule=ifa architecture.hidden=[9,8] architecture.init_scale=0": "rule=ifa cannot learn if stages_1/lin",
    "task=digits rule=brsf feedback.distribution=weights": "rule=brsf needs feedback that is drawn at random",
    "rule=bp feedback=direct": "rule=bp has no feedback to initialise; got feedback=direct",
    "rule=bp +feedback.density=1": "rule=bp has no feedback to initialise; got feedback={'density': 1}",
    "rule=fa feedback=direct": "rule=fa needs feedback of each linear layer that the error crosses, such as layerwise",
    "rule=usf feedback=direct": "rule=usf needs feedback of each linear layer that the error crosses",
    "rule=brsf feedback=direct": "rule=brsf needs feedback of each linear layer that the error crosses",
    "rule=dfa feedback=layerwise": "rule=dfa needs feedback of each hidden layer, such as direct",
    "rule=mirrored_pepita rule.sign=plus": "rule.sign must be minus: mirrored feedback follows the weights",
    "rule=target_propagation rule.inner_steps=3": "rule.inner_rate must be a finite number above 0; got None",
    "task=digits rule=target_propagation rule.variant=l_drl rule.inner_rate=0.1": "feedback_optimizer must be sgd with "
    "learning_rate=1, since this rule sets its feedback itself: +optimizer@feedback_optimizer=sgd",
    "task=digits rule=counter_current rule.learned=no": "rule.learned must be true or false; got 'no'",
    "task=digits rule=counter_current rule.learned=false feedback_optimizer=sgd": "feedback_optimizer must be null",
    "rule=pepita feedback=direct": "rule=pepita needs feedback to the input alone, such as to_input",
    "rule=pepita rule.positions=mean": "rule.positions must be sum unless the network has convolutions; got mean",
    "rule=ifa feedback=layerwise": "rule=ifa needs feedback to the first hidden layer alone",
    "task=digits architecture=resnet8 tuned=true": "tuned=true has no values for digits/resnet8/bp; did you mean ",
    "task=digits tuned=true optimizer=adam": "tuned=true has values for optimizer=sgd with digits/mlp/bp; got "
    "optimizer=adam",
    # The command itself
    "hydra.run.dir=file/below": "is a file; choose a folder",
    "hydra.run.dir=/proc/below": "hydra.run.dir=/proc/below: ",
    "--multirun rule=bp,predictive_coding rule.steps.x=1": "rule.steps.x is no option with rule=bp",
    "rule=fa,bp": "rule has several values; --multirun trains with each of them, and [a,b] is a list",
    "run": "the verb must be one of train, tune, compare, report, status, list, new, check, help; got 'run'",
    "list ruels": "list must be one of rule, task, architecture, feedback, ",
    "--foo": "a flag must be one of --multirun, -m, --config-dir, ",
    "--cfg all": "--cfg must be job; got 'all'",
    "--config-dir=nowhere": "--config-dir must be a folder of configs; got 'nowhere'",
    "force=yes": "force must be true, or left out; got 'yes'",
}


@pytest.mark.parametrize("words", MISTAKES)
def test_a_mistake_prints_one_line_and_leaves_no_folder(folder, refusal, words):
    (folder / "file").write_text("")
    assert MISTAKES[words] in refusal(*words.split())
    assert [path.name for path in folder.iterdir()] == ["file"]


RENAMED = {
    "rule=fa rule.scale=0.5": "did you mean 'feedback.scale'?",
    "rule=fa rule.distribution=uniform": "did you mean 'feedback.distribution'?",
    "rule=fa rule.kept=0.5": "feedback.density",
    "rule=dfa rule.shared=true": "did you mean 'feedback.shared'?",
    "architecture.kept=0.5": "architecture.density",
    "task=digits architecture=cnn architecture.hidden_ends=1": "did you mean 'architecture.hidden_position'?",
    "optimizer=averaged": "optimizer must be one of adam, adamw, ema, momentum, rmsprop, sgd; got 'averaged'",
    "optimizer/schedule=halfway": "constant_then_linear",
    "optimizer/schedule=staircase": "step_decay",
    "loss.derivative=omitted": "loss.derivative must be one of exact, straight_through; got 'omitted'",
    "measures=[separation]": "measures is no option; did you mean 'measure'?",
    "experiment=lillicrap2014_task1": "got 'lillicrap2014_task1'; did you mean 'lillicrap2014/task1'?",
    "experiment=yagi2022_task3_fa2": "got 'yagi2022_task3_fa2'; did you mean 'yagi2022/task3_fa2'?",
    "task=digits rule=forward_forward rule.blurs=1": "did you mean 'rule.blur_steps'?",
    "task=digits rule=forward_forward rule.head_rate=1": "rule.readout_rate",
    "task=digits rule=forward_forward rule.head_decay=1": "rule.readout_decay",
    "task=digits rule=forward_forward rule.sleep=1": "rule.phase_length",
    "task=digits rule=forward_forward rule.read_from=1": "rule.first_readout_layer",
    "task=digits rule=recurrent_forward_forward rule.learned_from=1": "rule.first_training_iteration",
    "task=digits rule=recurrent_forward_forward rule.scored=1": "rule.eval_iterations",
}
"""Former names of options and choices, and the present name that the message contains."""


@pytest.mark.parametrize("words", RENAMED)
def test_the_message_about_a_former_name_contains_the_present_name(refusal, words):
    assert RENAMED[words] in refusal(*words.split())


def test_choices_of_config_dir_are_suggested(folder, refusal):
    (folder / "configs" / "rule").mkdir(parents=True)
    (folder / "configs" / "rule" / "my_rule.yaml").write_text("# @package _global_\n")
    line = refusal("--config-dir=configs", "rule=my_rul")
    assert "; got 'my_rul'; did you mean 'my_rule'?" in line


def test_the_former_name_of_the_sigmoid_is_accepted(folder):
    words = ["task.train_examples=4", "seeds=1", "probe=0", "checkpoint=false", "hydra.run.dir=run"]
    assert main([*words, "architecture.activation=logistic", "loss.output=logistic"]) == 0
    assert (folder / "run" / "summary.json").exists()


def test_another_generator_of_random_numbers_is_refused(refusal):
    jax.config.update("jax_default_prng_impl", "rbg")
    try:
        line = refusal("task.train_examples=40")
    finally:
        jax.config.update("jax_default_prng_impl", "threefry2x32")
    assert "JAX_DEFAULT_PRNG_IMPL must be threefry2x32, with which a seed does not depend on others; got rbg" in line
