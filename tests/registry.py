"""Every public estimator once, as the common checks construct it.

scikit-learn's array API check (numpy rows, with dispatch switched on) is skipped unless
SCIPY_ARRAY_API is set before scipy is imported. That changes how scipy behaves, so the
other tests run without it, as users do, and `make test-array-api` runs this check alone.
"""

from importlib.util import find_spec

from nets import net
from privacy_targets import AboveTheMedian, any_width_target
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import LogisticRegression, Ridge, RidgeClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor
from sklearn.utils.validation import has_fit_parameter

from sklearn_advsec import (
    defense,
    encryption,
    evasion,
    extraction,
    poisoning,
    privacy,
)

VICTIM = LogisticRegression()
# Some of every family have a victim that scales first.
PIPELINE = make_pipeline(StandardScaler(), LogisticRegression())
TREE_VICTIM = DecisionTreeClassifier(max_depth=4, random_state=0)

EVASION = [
    evasion.AdversarialPatch(VICTIM, max_iter=5, n_images=10),
    evasion.AutoAttack(VICTIM, max_iter=3, square_queries=10),
    evasion.AutoProjectedGradientDescent(VICTIM, max_iter=10),
    evasion.BasicIterativeMethod(VICTIM),
    evasion.CarliniWagner(VICTIM, max_iter=10, n_searches=2),
    evasion.ConstrainedAPGD(VICTIM, max_iter=5),
    evasion.ConstrainedAdaptiveAttack(VICTIM, n_generations=3, population=6),
    evasion.DeepFool(VICTIM),
    evasion.FastAdaptiveBoundary(VICTIM, max_iter=5),
    evasion.FastGradientMethod(PIPELINE),
    evasion.FastMinimumNorm(VICTIM, max_iter=10),
    evasion.GreedyFeatureAttack(VICTIM, max_queries=25),
    evasion.HopSkipJump(VICTIM, max_queries=25),
    evasion.IterativeLeastLikely(VICTIM),
    evasion.JacobianSaliencyMap(VICTIM),
    evasion.LabelOnlyNES(VICTIM, max_queries=25),
    evasion.MultiObjectiveEvolution(VICTIM, n_generations=3, population=6),
    evasion.NaturalEvolutionStrategy(VICTIM, max_queries=25),
    evasion.OnePixel(VICTIM, max_queries=25),
    evasion.PointwiseAttack(VICTIM, max_queries=25),
    evasion.ProjectedGradientDescent(VICTIM, max_iter=10),
    evasion.RayS(VICTIM, max_queries=25),
    evasion.SigmaZero(VICTIM, max_iter=10),
    evasion.SimBA(VICTIM, max_queries=25),
    evasion.SquareAttack(VICTIM, max_queries=25),
    evasion.TransferAttack(VICTIM, surrogate=LogisticRegression(C=0.1)),
    evasion.TreeCoordinateAttack(TREE_VICTIM),
    evasion.TreeExactAttack(TREE_VICTIM),
    evasion.UniversalPerturbation(VICTIM, max_iter=5),
    evasion.ZerothOrderOptimization(VICTIM, max_queries=25),
    evasion.ExpectationOverTransformation(
        VICTIM,
        attack=evasion.ProjectedGradientDescent(max_iter=5),
        transformations=[evasion.GaussianNoise(0.05)],
        n_samples=2,
    ),
]

TRAINING_ATTACK = evasion.ProjectedGradientDescent(eps=0.05, max_iter=2)
DEFENSE = [
    defense.AdversarialDetector(VICTIM),
    defense.AdversarialTrainingClassifier(
        PIPELINE, TRAINING_ATTACK, n_rounds=1, random_state=0
    ),
    defense.AdversarialTrainingClassifier(
        net(max_epochs=5), TRAINING_ATTACK, random_state=0
    ),
    defense.FeatureNoise(),
    defense.FeatureSqueezing(),
    defense.IntervalBoundClassifier(net(max_epochs=5), eps=0.01, random_state=0),
    defense.JPEGCompression(),
    defense.LabelSmoothingClassifier(net(max_epochs=5), random_state=0),
    defense.LogitPairingClassifier(net(max_epochs=5), TRAINING_ATTACK, random_state=0),
    defense.MagNet(VICTIM, max_epochs=30, learning_rate=0.02),
    defense.MARTClassifier(net(max_epochs=5), TRAINING_ATTACK, random_state=0),
    defense.MixupClassifier(net(max_epochs=5), random_state=0),
    defense.RandomDepthwiseSignedClassifier(n_filters=50, C=0.05),
    defense.RandomizedSmoothingClassifier(VICTIM, n_samples=20),
    defense.RandomizedSmoothingClassifier(net(max_epochs=5), n_samples=5, sigma=0.1),
    defense.RobustDecisionTreeClassifier(random_state=0),
    defense.RobustRandomForestClassifier(n_estimators=5, random_state=0),
    defense.TRADESClassifier(net(max_epochs=5), TRAINING_ATTACK, random_state=0),
]

# Rows of the checks carry no label: the target's own predictions take its place.
MEMBERSHIP = [
    attack(any_width_target(), label_column=None, **parameters)
    for attack, parameters in (
        (privacy.BoundaryDistance, {"max_queries": 10, "n_shadow_models": 2}),
        (privacy.GapAttack, {}),
        (privacy.LikelihoodRatio, {"n_shadow_models": 4}),
        (privacy.LossThreshold, {}),
        (privacy.ModifiedEntropy, {}),
        (
            privacy.QuantileMembership,
            {
                "quantile_estimator": HistGradientBoostingRegressor(
                    loss="quantile", quantile=0.95, max_iter=5
                )
            },
        ),
        (privacy.RMIA, {"n_shadow_models": 2}),
        (
            privacy.ShadowModels,
            {"n_shadow_models": 2, "attack_estimator": LogisticRegression()},
        ),
    )
]
for attack in MEMBERSHIP:
    if "shadow_estimator" in attack.get_params(deep=False):
        shadow = make_pipeline(StandardScaler(), DecisionTreeClassifier(max_depth=3))
        attack.set_params(shadow_estimator=shadow)

PRIVACY = [
    *MEMBERSHIP,
    privacy.AttributeInference(
        any_width_target(),
        attack_estimator=DecisionTreeClassifier(max_depth=3, random_state=0),
        label_column=None,
    ),
    privacy.PropertyInference(
        any_width_target(),
        group=AboveTheMedian(),
        shadow_estimator=DecisionTreeClassifier(max_depth=3),
        n_shadow_models=8,
        label_column=None,
    ),
    privacy.NumericAttributeInference(
        any_width_target(),
        attack_estimator=DecisionTreeRegressor(max_depth=3, random_state=0),
        n_values=4,
        label_column=None,
    ),
    privacy.DPSGDClassifier(net(max_epochs=8, lr=0.05), random_state=0),
    privacy.ModelInversion(PIPELINE),
]

THIEVES = [
    extraction.ActiveExtraction(VICTIM, surrogate=LogisticRegression()),
    extraction.CopycatCNN(VICTIM, surrogate=LogisticRegression()),
    extraction.EquationSolving(VICTIM),
    extraction.JacobianSubstitute(VICTIM, surrogate=LogisticRegression(), n_rounds=2),
    extraction.KnockoffNets(PIPELINE, surrogate=LogisticRegression()),
    extraction.PathFinding(DecisionTreeClassifier(max_depth=3, random_state=0)),
    extraction.ReLUExtraction(VICTIM),
]

EXTRACTION = [
    *THIEVES,
    extraction.LabelsOnly(VICTIM),
    extraction.PRADADetector(VICTIM),
    extraction.ReverseSigmoid(VICTIM),
    extraction.RoundedProbabilities(VICTIM),
    extraction.TopKProbabilities(PIPELINE),
]

POISONERS = [
    poisoning.LabelFlipping(RidgeClassifier(), random_state=0),
    poisoning.LabelFlipping(RidgeClassifier(), strategy="alfa", random_state=0),
    poisoning.LabelFlipping(PIPELINE, strategy="farthest", random_state=0),
    poisoning.LabelFlipping(strategy="random", random_state=0),
    poisoning.GradientCanceling(RidgeClassifier(), max_iter=3, random_state=0),
    poisoning.InfluencePoisoning(RidgeClassifier(), max_iter=3, random_state=0),
    poisoning.KKTPoisoning(RidgeClassifier(), max_iter=3, random_state=0),
    poisoning.TreePoisoning(TREE_VICTIM, random_state=0),
    poisoning.SVMPoisoning(SVC(kernel="linear"), max_iter=3, random_state=0),
    poisoning.MinMaxPoisoning(RidgeClassifier(), max_iter=20, random_state=0),
    poisoning.BackdoorTrigger("in_bounds", random_state=0),
    poisoning.BackdoorTrigger("sinusoidal", random_state=0),
    poisoning.SleeperAgent(
        RidgeClassifier(),
        trigger=poisoning.BackdoorTrigger("in_bounds"),
        budget=3,
        max_iter=5,
        random_state=0,
    ),
]

SANITIZERS = [
    poisoning.ActivationClustering(
        RidgeClassifier(), min_silhouette=-1.0, max_share=0.5, random_state=0
    ),
    poisoning.KNNSanitizer(),
    poisoning.KNNSanitizer(action="remove"),
    poisoning.InfluenceSanitizer(RidgeClassifier()),
    poisoning.LossTrimming(PIPELINE, random_state=0),
    poisoning.STRIP(TREE_VICTIM, n_blends=5, random_state=0),
    poisoning.SpectralSignatures(TREE_VICTIM, random_state=0),
    poisoning.SphereSlabSanitizer(),
]

# Of rows that are to be misclassified, four features wide; scikit-learn's checks, whose
# rows have other widths, take none of them.
TARGETED_POISONERS = [
    poisoning.FeatureCollision(
        RidgeClassifier(), target=[[0.4, 0.4, 0.5, 0.5]], random_state=0
    ),
    poisoning.BullseyePolytope(
        RidgeClassifier(), target=[[0.4, 0.4, 0.5, 0.5]], max_iter=5, random_state=0
    ),
    poisoning.GradientMatching(
        LogisticRegression(),
        target=[[0.4, 0.4, 0.5, 0.5]],
        budget=3,
        max_iter=5,
        random_state=0,
    ),
]

POISONING = [
    *POISONERS,
    *SANITIZERS,
    poisoning.BaggingCertified(TREE_VICTIM, n_estimators=15, random_state=0),
    poisoning.CertifiedPoisoningBound(max_iter=20),
    poisoning.DeepPartitionAggregation(PIPELINE, n_partitions=3, random_state=0),
    poisoning.DegreeOfSimilarity(),
    poisoning.FakeUsers(items=[0], strategy="average", n_users=1, random_state=0),
    poisoning.MatrixFactorization(random_state=0),
    poisoning.PCAVarSelect(),
    poisoning.LastHiddenLayer(VICTIM),
    poisoning.NeuralCleanse(VICTIM, max_iter=3, random_state=0),
    poisoning.PoisonedClassifier(
        PIPELINE, poisoning.LabelFlipping(strategy="random", random_state=0)
    ),
    poisoning.SanitizedClassifier(PIPELINE, poisoning.KNNSanitizer()),
]

# Behind a StandardScaler, rows of the checks lie on the boundary (to 2e-6), where noise
# decides; and a check wants numbers to 1e-7, which a scaler's larger coefficients miss.
ENCRYPTION = [
    encryption.DiscretizedMLPClassifier(max_epochs=10, learning_rate=0.05),
    encryption.EncryptedClassifier(
        make_pipeline(MinMaxScaler(), LogisticRegression()), packing="columns"
    ),
    encryption.EncryptedRegressor(Ridge(), packing="columns"),
]

FAMILIES = {
    evasion: EVASION,
    defense: DEFENSE,
    encryption: ENCRYPTION,
    extraction: EXTRACTION,
    poisoning: POISONING,
    privacy: PRIVACY,
}

# Public names that are no estimators, or that scikit-learn's checks cannot construct.
NOT_CHECKED = {
    **{type(attack).__name__: "needs target rows" for attack in TARGETED_POISONERS},
    "Blur": "a transformation of images",
    "Certificate": "a result",
    "Brightness": "a transformation of images",
    "Client": "has the keys of encrypted inference, and is no estimator",
    "Contrast": "a transformation of images",
    "CountingCertificate": "a result",
    "DRAFT": "reads a forest and a domain, and no rows",
    "EvasionAttack": "a base class",
    "EncryptedClient": "needs a service to talk to",
    "EncryptionReadyTraining": "a callback of skorch",
    "EncryptionService": "a server, and no estimator",
    "EvasionResult": "a result",
    "ExtractionAttack": "a base class",
    "ExtractionDetected": "an error",
    "GaussianNoise": "a transformation of images",
    "HomomorphicArray": "an encrypted array",
    "HomomorphicClient": "has the keys of encrypted arrays",
    "HomomorphicKeys": "public keys",
    "ImplicitRecommender": "takes the models of a library",
    "InjectionReport": "a result",
    "JPEG": "a transformation of images",
    "KeepModels": "a scorer",
    "MembershipAttack": "a base class",
    "MembershipGame": "makes targets for attacks, and is no estimator",
    "MembershipRound": "a result",
    "MessageError": "an error",
    "Perspective": "a transformation of images",
    "PolynomialActivation": "a function of values, and no predictor of rows",
    "PoisoningAttack": "a base class",
    "PoisoningCertificate": "a result",
    "PoisoningReport": "a result",
    "PrivacyAudit": "needs to know who is a member",
    "PrintScan": "a transformation of images",
    "Reconstruction": "a result",
    "RONI": "needs trusted rows of the classes of its data",
    "Rotation": "a transformation of images",
    "Sanitizer": "a base class",
    "Scaling": "a transformation of images",
    "Server": "has the weights of encrypted inference, and is no estimator",
    "ShadowAttack": "a base class",
    "Shift": "a transformation of images",
    "StoredRows": "a result",
    "StructuralReport": "a result",
    "TrainedShadows": "models that are there already",
    "TFHE": "parameters of encryption, and no predictor",
    "TextSubstitution": "attacks documents: tests/evasion/test_text.py",
    "TextSubstitutionResult": "a result",
    "TreeExactResult": "a result",
}

# A check that an estimator cannot pass, with the reason.
_WEIGHTS_COUNT = "shares and neighbours count rows: one of weight 0 is a row, too"
_ROW_COUNTS = {
    f"check_sample_weight_equivalence_on_{kind}_data": _WEIGHTS_COUNT
    for kind in ("dense", "sparse")
}
# Batches, noisy copies, ranges and autoencoders are of rows, whatever their weight; that
# a weight counts as copies in the loss is checked by the defenses' own contract.
_OF_ROWS = {"check_sample_weight_equivalence_on_dense_data": "batches are of rows"}
# Checks that are not meant for an estimator: whether it fails depends on its settings.
# The weights of these are their victim's: a row of weight 0 still counts for the range,
# as a start, and is asked about.
NOT_MEANT_FOR = {
    "check_sample_weight_equivalence_on_dense_data": {
        *(type(attack).__name__ for attack in EVASION),
        "CopycatCNN",
        "EncryptedClassifier",
        "JacobianSubstitute",
        "KnockoffNets",
    }
}
EXPECTED_FAILURES = {
    "ReLUExtraction": {
        "check_classifiers_one_label_sample_weights": "sure victims cannot be solved for"
    },
    **{
        type(estimator).__name__: _OF_ROWS
        for estimator in DEFENSE
        if has_fit_parameter(estimator, "sample_weight")
        and type(estimator).__name__ != "AdversarialDetector"
    },
    "RoundedProbabilities": {
        "check_classifiers_train": "rounded probabilities need not add up to 1"
    },
    "MatrixFactorization": {
        f"check_estimator_sparse_{kind}": "it predicts a score of each item for a user"
        for kind in ("array", "matrix")
    },
    "PoisonedClassifier": _ROW_COUNTS,
    "SanitizedClassifier": _ROW_COUNTS,
}

if find_spec("tenseal") is None:
    for estimator in ENCRYPTION:
        NOT_CHECKED[type(estimator).__name__] = "needs TenSEAL, which is not installed"
    ENCRYPTION.clear()
