/// A job that is refused before anything is sent.
package struct Refusal: Error {
    package let code, message: String

    package init(code: String, _ message: String) { (self.code, self.message) = (code, message) }
}

/// The job cannot go on now: it goes back to its stream after a wait, no attempt counted.
struct SetAside: Error {
    let wait: Duration

    /// Up to half as much again and two seconds at most, so that what stopped together does not come back together.
    init(_ wait: Duration) { self.wait = wait + min(wait / 2, .seconds(2)) * Double.random(in: 0...1) }
}

/// The job's deadline passed before it was executed.
struct JobExpired: Error {}
