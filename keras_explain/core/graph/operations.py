"""What the graph's operations do to numbers, by TensorFlow's names of their types."""

ALIASES = frozenset({"Identity", "IdentityN", "StopGradient", "Snapshot", "CheckNumerics"})
"""They return their inputs."""

CONSTANTS = frozenset(
    {
        *("Shape", "ShapeN", "Size", "Rank", "ZerosLike", "OnesLike", "PreventGradient"),
        *("TensorListLength", "TensorListElementShape"),
    }
)
"""What they return does not depend on the values of their inputs, or is a choice of a target."""

WEIGHTED = {
    "MatMul": (0, 1),
    "BatchMatMulV2": (0, 1),
    "BatchMatMulV3": (0, 1),
    "Einsum": (0, 1),
    "Conv2D": (0, 1),
    "Conv3D": (0, 1),
    "DepthwiseConv2dNative": (0, 1),
    "Conv2DBackpropInput": (2, 1),
    "Conv3DBackpropInputV2": (2, 1),
}
"""Products of two operands, and the positions of these: of the input and of the kernel."""

PRODUCTS = frozenset({"MatMul", "BatchMatMulV2", "BatchMatMulV3", "Einsum", "Mul"})
"""Linear in each of two operands, either of which may depend on the input."""

KERNEL_AXES = {
    **dict.fromkeys(("MatMul", "BatchMatMulV2", "BatchMatMulV3", "Conv2D", "Conv3D"), -1),
    **dict.fromkeys(("Conv2DBackpropInput", "Conv3DBackpropInputV2"), -2),
    "DepthwiseConv2dNative": -1,
}
"""The axis of a kernel that holds the output channels."""

AFFINE = frozenset({"AddV2", "Add", "BiasAdd", "Sub", "Mul", "RealDiv", "Neg"})
"""Elementwise, and affine in one operand while the other one is constant."""

COMPARISONS = frozenset(
    {
        *("Greater", "GreaterEqual", "Less", "LessEqual", "Equal", "NotEqual"),
        *("LogicalAnd", "LogicalOr", "LogicalNot", "IsNan", "IsInf", "IsFinite"),
    }
)

ELEMENTWISE = (
    AFFINE
    | COMPARISONS
    | {
        *("Relu", "Relu6", "LeakyRelu", "Elu", "Selu", "Softplus", "Softsign", "Sigmoid", "Tanh"),
        *("Exp", "Expm1", "Log", "Log1p", "Square", "Sqrt", "Rsqrt", "Pow", "Reciprocal", "Inv"),
        *("Erf", "Erfc", "Erfinv", "Abs", "Sign", "Floor", "Ceil", "Round", "Rint", "Cast"),
        *("Sin", "Cos", "Tan", "Sinh", "Cosh", "Asin", "Acos", "Atan", "Asinh", "Acosh", "Atanh"),
        *("Atan2", "Maximum", "Minimum", "SquaredDifference", "DivNoNan", "Div", "MulNoNan"),
        *("FloorDiv", "FloorMod", "Xdivy", "Xlogy", "Xlog1py", "Lgamma", "Digamma", "ClipByValue"),
        *("SelectV2", "Select"),
    }
)
"""Each entry of the output depends on the same entry of the inputs alone."""

ROUTING = frozenset(
    {
        *("Reshape", "Transpose", "Squeeze", "ExpandDims", "ConcatV2", "Pack", "Unpack"),
        *("Split", "SplitV", "Slice", "StridedSlice", "Pad", "PadV2", "MirrorPad", "Tile"),
        *("BroadcastTo", "GatherV2", "GatherNd", "ReverseV2", "Roll", "SpaceToDepth"),
        *("DepthToSpace", "SpaceToBatchND", "BatchToSpaceND", "ResizeNearestNeighbor"),
        *("ExtractImagePatches", "MatrixDiagPartV3", "MatrixBandPart"),
        "Routing",  # a product with a constant kernel, see kernels.py
    }
)
"""Each entry of the output is one entry of an input, or a constant."""

FILLING = frozenset(
    {
        *("Pad", "PadV2", "MatrixBandPart", "MatrixDiagPartV3", "ExtractImagePatches"),
        *("SpaceToBatchND", "BatchToSpaceND"),
    }
)
"""Routing that may put a constant, of `PadV2` another one than 0, where it has no entry."""

ARRANGING = frozenset(
    {
        *("Reshape", "Squeeze", "ExpandDims", "Transpose", "Pad"),
        *("SpaceToBatchND", "BatchToSpaceND"),
    }
)
"""Routing that layers do around a product, to pad their input and to give it another form."""

BEFORE_ONLY = frozenset({"Pad", "SpaceToBatchND"})
"""What of it a layer does to its input alone."""

SELECTIONS = frozenset({"SelectV2", "Select"})
"""Each entry of the output is that of one of two inputs, by a condition, their first operand."""

CONVOLUTIONS = frozenset(
    {
        *("Conv2D", "Conv3D", "DepthwiseConv2dNative"),
        *("Conv2DBackpropInput", "Conv3DBackpropInputV2"),
    }
)

MIXING = frozenset(
    {
        *("AddV2", "Add", "AddN", "Sub", "Sum", "Mean", "AvgPool", "AvgPool3D", "BiasAdd"),
        *("ResizeBilinear", "ResizeBicubic", "ScaleAndTranslate", "Cumsum"),
        "Mixing",  # likewise
    }
)
"""Linear, with fixed coefficients: sums and means of entries."""

LINEAR = ROUTING | MIXING | {"Neg"}

MAXIMA = frozenset({"MaxPool", "MaxPool3D", "Max", "Maximum", "Min", "Minimum"})
"""Each entry of the output is the largest, or least, of some entries of the inputs."""

NOT_NEGATIVE = frozenset(
    {"Relu", "Relu6", "Sigmoid", "Softplus", "Exp", "Square", "Sqrt", "Abs", "Softmax"}
)
"""What they return is 0 or more."""

KEEP_SIGN = ROUTING - {"PadV2"} | {"MaxPool", "MaxPool3D", "Max", "AvgPool", "AvgPool3D", "Mean"}
"""What they return is 0 or more where their inputs are."""
