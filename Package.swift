// swift-tools-version: 6.2
import PackageDescription

let strict: [SwiftSetting] = [
    .enableUpcomingFeature("ExistentialAny"),
    .enableUpcomingFeature("InternalImportsByDefault"),
    .enableUpcomingFeature("MemberImportVisibility"),
    .treatAllWarnings(as: .error),
]

let argumentParser: Target.Dependency = .product(name: "ArgumentParser", package: "swift-argument-parser")
let hummingbird: Target.Dependency = .product(name: "Hummingbird", package: "hummingbird")
let lifecycle: Target.Dependency = .product(name: "ServiceLifecycle", package: "swift-service-lifecycle")
let logging: Target.Dependency = .product(name: "Logging", package: "swift-log")
let nio: Target.Dependency = .product(name: "NIOCore", package: "swift-nio")
let nioPosix: Target.Dependency = .product(name: "NIOPosix", package: "swift-nio")

let package = Package(
    name: "exchange-worker",
    dependencies: [
        .package(url: "https://github.com/HdrHistogram/hdrhistogram-swift", from: "0.2.0"),
        .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.0"),
        .package(url: "https://github.com/apple/swift-log", from: "1.14.0"),
        .package(url: "https://github.com/apple/swift-metrics", from: "2.9.0"),
        .package(url: "https://github.com/apple/swift-nio", from: "2.101.0"),
        .package(url: "https://github.com/apple/swift-nio-ssl", from: "2.37.2"),
        .package(url: "https://github.com/hummingbird-project/hummingbird", from: "2.28.0"),
        .package(url: "https://github.com/swift-server/swift-service-lifecycle", from: "2.13.0"),
    ],
    targets: [
        .systemLibrary(name: "CHiredis", providers: [.apt(["libhiredis-dev"])]),
        .systemLibrary(name: "CCurl", providers: [.apt(["libcurl4-openssl-dev"])]),
        .systemLibrary(name: "COpenSSL", providers: [.apt(["libssl-dev"])]),
        .target(
            name: "Redis",
            dependencies: ["CHiredis", nio, nioPosix, .product(name: "NIOSSL", package: "swift-nio-ssl")],
            swiftSettings: strict),
        .target(name: "Exchanges", dependencies: ["CCurl", "COpenSSL"], swiftSettings: strict),
        .target(
            name: "Fleet",
            dependencies: [
                "Redis", "Exchanges", hummingbird, lifecycle, logging, nio, nioPosix,
                .product(name: "CoreMetrics", package: "swift-metrics"),
                .product(name: "Metrics", package: "swift-metrics"),
            ],
            resources: [.embedInCode("fleet.lua")],
            swiftSettings: strict),
        .executableTarget(name: "worker", dependencies: ["Fleet", lifecycle, logging], swiftSettings: strict),
        .executableTarget(
            name: "producer", dependencies: ["Fleet", "Redis", "Exchanges", argumentParser, nioPosix],
            swiftSettings: strict),
        .executableTarget(
            name: "exchange-simulator",
            dependencies: ["Exchanges", argumentParser, hummingbird, lifecycle, logging, nio],
            resources: [.embedInCode("markets"), .embedInCode("answers")],
            swiftSettings: strict),
        .executableTarget(
            name: "bench",
            dependencies: [
                "CHiredis", "Fleet", "Redis", "Exchanges", argumentParser,
                .product(name: "Histogram", package: "hdrhistogram-swift"),
            ], swiftSettings: strict),
        .target(name: "TestSupport", path: "Tests/TestSupport", swiftSettings: strict),
        .testTarget(name: "RedisTests", dependencies: ["Redis", "TestSupport", nio, nioPosix], swiftSettings: strict),
        .testTarget(
            name: "ExchangesTests", dependencies: ["Exchanges", "TestSupport"], resources: [.copy("Fixtures")],
            swiftSettings: strict),
        .testTarget(
            name: "FleetTests", dependencies: ["Fleet", "Redis", "Exchanges", "TestSupport", nio, nioPosix],
            swiftSettings: strict),
    ],
    swiftLanguageModes: [.v6]
)
