/* Browsers start no Worker for a page that was opened from a folder (file:). Search needs one: here it is, in a hidden
   frame. Pages from a server keep the browser's own. */
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super()
      this.waiting = []
      this.frame = document.createElement("iframe")
      this.frame.hidden = true
      document.body.appendChild(this.frame)
      const inside = this.frame.contentWindow
      inside.document.open()
      inside.document.write("<!doctype html><html><head></head><body></body></html>")
      inside.document.close()
      inside.postMessage = data => this.answer(data)
      inside.importScripts = (...urls) =>
        urls.reduce((before, one) => before.then(() => this.load(new URL(one, url).href)), Promise.resolve())
      this.load(url).then(() => {
        this.frame.ready = true
        this.waiting.splice(0).forEach(data => this.hand(data))
      })
    }
    load(url) {
      return new Promise((resolve, reject) => {
        const script = this.frame.contentDocument.createElement("script")
        script.src = url
        script.onload = resolve
        script.onerror = reject
        this.frame.contentDocument.body.appendChild(script)
      })
    }
    answer(data) {
      const event = new MessageEvent("message", { data })
      this.dispatchEvent(event)
      if (this.onmessage) this.onmessage(event)
    }
    hand(data) {
      const event = new this.frame.contentWindow.MessageEvent("message", { data })
      this.frame.contentWindow.dispatchEvent(event)
    }
    postMessage(data) {
      this.frame.ready ? this.hand(data) : this.waiting.push(data)
    }
    terminate() {
      this.frame.remove()
    }
  }
}
