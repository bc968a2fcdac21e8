"""The house: public import paths, and layers that never import upward or in a circle."""

import ast
from importlib import import_module
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "sklearn_advsec"

# Whatever was importable once stays so. New names are added, none is taken away without
# a deprecation.
PUBLIC = {
    "audit": """
        AuditComparison Bracket Finding Outcome Recommendation Section SectionReport
        SecurityAudit Subject Task Untested catalogue schema
    """,
    "batched": """
        batchable fit_many
    """,
    "defense": """
        AdversarialDetector AdversarialTrainingClassifier Certificate FeatureNoise
        FeatureSqueezing IntervalBoundClassifier JPEGCompression
        LabelSmoothingClassifier LogitPairingClassifier MARTClassifier MagNet
        MixupClassifier RandomDepthwiseSignedClassifier RandomizedSmoothingClassifier
        RobustDecisionTreeClassifier RobustRandomForestClassifier TRADESClassifier
        certify
    """,
    "differentiable": """
        ClassifierView TransformerView binary_logits bpda register supported view
    """,
    "encryption": """
        Client DiscretizedMLPClassifier EncryptedClassifier EncryptedClient
        EncryptedRegressor EncryptionReadyTraining EncryptionService HomomorphicArray
        HomomorphicClient HomomorphicKeys MessageError PolynomialActivation Server
        TFHE register_graph
    """,
    "evasion": """
        AdversarialPatch AutoAttack AutoProjectedGradientDescent BasicIterativeMethod
        Blur Brightness CarliniWagner ConstrainedAPGD ConstrainedAdaptiveAttack
        Contrast DeepFool EvasionAttack EvasionResult ExpectationOverTransformation
        FastAdaptiveBoundary FastGradientMethod FastMinimumNorm GaussianNoise
        GreedyFeatureAttack HopSkipJump IterativeLeastLikely JPEG JacobianSaliencyMap
        LabelOnlyNES MultiObjectiveEvolution NaturalEvolutionStrategy OnePixel
        Perspective PointwiseAttack PrintScan ProjectedGradientDescent RayS Rotation
        Scaling Shift SigmaZero SimBA SquareAttack TextSubstitution
        TextSubstitutionResult TransferAttack TreeCoordinateAttack
        TreeExactAttack TreeExactResult UniversalPerturbation ZerothOrderOptimization
        destruction_rate
    """,
    "exceptions": """
        BadAnswerError FittedVictimWarning GradientMaskingWarning
        InterruptedRunWarning NoGradientError QueryBudgetExceeded
    """,
    "extraction": """
        ActiveExtraction CopycatCNN EquationSolving ExtractionAttack
        ExtractionDetected JacobianSubstitute KnockoffNets LabelsOnly PRADADetector
        PathFinding ReLUExtraction ReverseSigmoid RoundedProbabilities
        TopKProbabilities
    """,
    "inspection": """
        AdversarialExamplesDisplay ExtractionCurveDisplay MembershipRocDisplay
        RobustnessCurveDisplay
    """,
    "metrics": """
        attack_success_scorer backdoor_success_scorer bootstrap_interval
        certified_accuracy_scorer clopper_pearson destruction_rate fidelity_scorer
        gradient_masking_report
        membership_advantage robust_accuracy_scorer roc_auc_interval tpr_at_fpr
        tpr_at_fpr_scorer
    """,
    "poisoning": """
        ActivationClustering BackdoorTrigger BaggingCertified BullseyePolytope
        CertifiedPoisoningBound DeepPartitionAggregation DegreeOfSimilarity FakeUsers
        FeatureCollision GradientCanceling GradientMatching ImplicitRecommender
        InfluencePoisoning InfluenceSanitizer InjectionReport KKTPoisoning KNNSanitizer
        LabelFlipping LastHiddenLayer LossTrimming MatrixFactorization MinMaxPoisoning
        NeuralCleanse PCAVarSelect PoisonedClassifier PoisoningAttack
        PoisoningCertificate PoisoningReport RONI STRIP SanitizedClassifier Sanitizer
        SleeperAgent SpectralSignatures SphereSlabSanitizer TreePoisoning
        injection_report poisoning_report profile_realism
    """,
    "pretrained": """
        PretrainedModule
    """,
    "privacy": """
        AttributeInference BoundaryDistance CountingCertificate DPSGDClassifier
        DRAFT GapAttack KeepModels LikelihoodRatio LossThreshold
        MembershipAttack MembershipGame MembershipRound ModelInversion
        ModifiedEntropy NumericAttributeInference PrivacyAudit PropertyInference
        QuantileMembership RMIA Reconstruction ShadowAttack ShadowModels
        StoredRows StructuralReport TrainedShadows counting_certificate
        epsilon_from_guesses epsilon_lower_bound make_records rmia_scores
        stored_rows structural_checks
    """,
    "threat": """
        Box FeatureConstraints LpBall
    """,
    "trees": """
        TreeEnsemble certified_radii check_certificate is_tree_ensemble leaf_boxes
        register_reader supported tree_ensemble
    """,
    "victim": """
        AnswerCheck BinaryScores GradientAccess LabelAccess RegressionVictim
        ScoreAccess as_victim ask_labels ask_scores fit_victim
    """,
}

# Names that two modules had for different things: they still work in the one that gave
# its up, and are listed in the other alone.
FORMER = {
    "evasion": {"JPEGCompression": "JPEG"},
    "trees": {"certify": "certified_radii", "register": "register_reader"},
}

# From below to above: a module imports from its own unit and from lower rows. Those of
# the lowest row may use each other.
LAYERS = [
    {"exceptions", "_rows", "_labels", "_estimators", "_seeding", "_progress"}
    | {"_parallel", "_show_versions", "_sklearn"},
    {"threat"},
    {"trees", "batched", "differentiable"},
    {"pretrained"},
    {"victim"},
    # Scores that need no family: the package `metrics` itself stands above all families.
    {"metrics._destruction", "metrics._membership"},
    {"evasion"},
    {"defense"},
    {"privacy", "poisoning", "extraction", "encryption"},
    {"metrics"},
    {"inspection"},
    {"audit"},
    {"__main__"},
]
FAMILIES = {"evasion", "defense", "privacy", "poisoning", "extraction", "encryption"}

# The private modules of a family that those above it may use: its bases, on which they
# build. Everything else of another family comes by its public name.
BASES = {
    "evasion._base",
    "evasion._goal",
    "evasion._state",
    "defense._base",
    "defense._net_training",
    "defense._wrapping",
}


@pytest.mark.parametrize("module", PUBLIC)
def test_public_names_can_be_imported(module):
    imported = import_module(f"sklearn_advsec.{module}")
    names = PUBLIC[module].split()
    assert [name for name in names if not hasattr(imported, name)] == []
    assert set(names) <= set(imported.__all__)


@pytest.mark.parametrize("module", FORMER)
def test_former_names_are_those_of_today(module):
    imported = import_module(f"sklearn_advsec.{module}")
    for former, name in FORMER[module].items():
        assert getattr(imported, former) is getattr(imported, name)
        assert former not in imported.__all__


def test_no_public_name_stands_for_two_things():
    found = {}
    for module in PUBLIC:
        imported = import_module(f"sklearn_advsec.{module}")
        for name in imported.__all__:
            found.setdefault(name, {})[module] = getattr(imported, name)
    shared = {
        name: sorted(modules)
        for name, modules in found.items()
        if len(set(map(id, modules.values()))) > 1
    }
    # What both registries can read; they are called with their module's name.
    assert shared.pop("supported") == ["differentiable", "trees"]
    assert shared == {}


def test_few_modules_stand_at_the_top():
    private = {
        path.stem for path in PACKAGE.glob("_*.py") if not path.stem.startswith("__")
    }
    assert len(private) <= 8, sorted(private)


# Imports ------------------------------------------------------------------------------


def _name(path):
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {_name(path): path for path in PACKAGE.rglob("*.py")}


def _imports(module):
    """Yield `(imported module, whether it is imported with this one)` of the package."""
    path = MODULES[module]
    tree = ast.parse(path.read_text())
    package = module.split(".") if module else []
    if path.stem != "__init__":
        package = package[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            if node.level:
                base = package[: len(package) - node.level + 1]
                base = ".".join([*base, *(node.module or "").split(".")]).strip(".")
            elif node.module.split(".")[0] == PACKAGE.name:
                base = node.module.partition(".")[2]
            else:
                continue
            for alias in node.names:
                whole = f"{base}.{alias.name}".strip(".")
                yield (whole if whole in MODULES else base), node in tree.body
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == PACKAGE.name:
                    yield alias.name.partition(".")[2], node in tree.body


IMPORTS = {module: set(_imports(module)) for module in MODULES}


def _unit(module):
    """Return what of `LAYERS` a module belongs to."""
    own = [unit for layer in LAYERS for unit in layer if unit == module]
    return own[0] if own else module.split(".")[0]


def _height(module):
    unit = _unit(module)
    found = [height for height, layer in enumerate(LAYERS) if unit in layer]
    assert found, f"{module} is in no layer of tests/test_layout.py"
    return found[0]


def test_no_import_runs_upward():
    """Those inside of functions count too: they hide a circle, and do not undo it."""
    upward = [
        (module, imported)
        for module in MODULES
        for imported, _ in IMPORTS[module]
        if module and imported and module.split(".")[0] != imported.split(".")[0]
        if _height(imported) >= _height(module) > 0
    ]
    assert upward == []


def test_families_meet_at_public_names_and_bases():
    private = [
        (module, imported)
        for module in MODULES
        for imported, _ in IMPORTS[module]
        if {_unit(module), _unit(imported)} <= FAMILIES
        if imported.split(".")[0] != module.split(".")[0]
        if "._" in imported and imported not in BASES
    ]
    assert private == []


@pytest.mark.parametrize("layer", ["threat", "victim", "trees", "batched"])
def test_lower_layers_know_no_family(layer):
    own = [module for module in MODULES if module.split(".")[0] == layer]
    assert own
    known = {_unit(imported) for module in own for imported, _ in IMPORTS[module]}
    assert not known & FAMILIES


def test_no_modules_import_each_other():
    """Of what is imported with a module; a package's `__init__` is a module as well."""
    waiting = {
        module: {name for name, at_once in IMPORTS[module] if at_once} - {module}
        for module in MODULES
    }
    while free := [module for module, needs in waiting.items() if not needs]:
        for module in free:
            del waiting[module]
        for needs in waiting.values():
            needs.difference_update(free)
    assert waiting == {}, "a circle among these, or below them"


def test_what_is_private_to_scikit_learn_is_imported_in_one_place():
    named = []
    for path in PACKAGE.rglob("*.py"):
        if path == PACKAGE / "_sklearn.py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.ImportFrom) or node.level:
                continue
            parts = (node.module or "").split(".")
            if parts[0] == "sklearn":
                parts += [name.name for name in node.names]
                private = [part for part in parts if part.startswith("_")]
                # Ours links to the pages of its estimators.
                private += [part for part in parts if part == "BaseEstimator"]
                if private and private != ["__version__"]:
                    named.append((path.name, *private))
    assert named == []
